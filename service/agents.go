package service

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"postilion/config/postfix"
	"postilion/mta/deliver"
	"postilion/service/child"
)

// agents are the delivery agents of master.cf's services, each made once.
type agents struct {
	mutex sync.Mutex
	made  map[*postfix.Service]deliver.Agent
}

// agent returns the agent of a service that hands mail to other programs, nil when there is none for its command.
func (b *builder) agent(service *postfix.Service) deliver.Agent {
	b.agents.mutex.Lock()
	defer b.agents.mutex.Unlock()
	if made, ok := b.agents.made[service]; ok {
		return made
	}
	var made deliver.Agent
	switch service.Command {
	case "lmtp":
		made = b.lmtpAgent(service)
	case "pipe":
		if pipe, err := b.pipeAgent(service); err != nil {
			b.postfixLog.Error(fmt.Sprintf("%s: %v: mail for it is put off", service.Pos, err))
		} else {
			made = pipe
		}
	}
	if b.agents.made == nil {
		b.agents.made = map[*postfix.Service]deliver.Agent{}
	}
	b.agents.made[service] = made
	return made
}

// makeAgents makes all agents, so that what is wrong with one is told at the start, and has them closed at the end.
func (b *builder) makeAgents() {
	for _, service := range b.postfix.Services() {
		if service.Type == "unix" {
			b.agent(service)
		}
	}
	b.background = append(b.background, b.closeAgents)
}

// closeAgents has the agents give back what they keep when the generation ends.
func (b *builder) closeAgents(ctx context.Context) {
	<-ctx.Done()
	b.agents.mutex.Lock()
	defer b.agents.mutex.Unlock()
	for _, agent := range b.agents.made {
		if closer, ok := agent.(interface{ Close() }); ok {
			closer.Close()
		}
	}
}

// lmtpAgent makes what lmtp(8) is for a service of master.cf.
func (b *builder) lmtpAgent(service *postfix.Service) *deliver.LMTP {
	view := service.View()
	options := deliver.LMTPOptions{
		Program: view.String("syslog_name") + "/" + service.Command, Log: b.postfixLog,
		Hostname: view.String("myhostname"), LHLO: view.String("lmtp_lhlo_name"), QueueDirectory: view.String("queue_directory"), Port: view.String("lmtp_tcp_port"),
		Lookup: b.lookup(view), SenderDependent: view.Bool("lmtp_sender_dependent_authentication"),
		MechanismFilter: view.List("lmtp_sasl_mechanism_filter"), Security: view.List("lmtp_sasl_security_options"), TLSSecurity: view.List("lmtp_sasl_tls_security_options"),
		XForward: view.Bool("lmtp_send_xforward_command"), LineLengthLimit: view.Int("lmtp_line_length_limit"),
		NoOutputConversion: view.Bool("disable_mime_output_conversion"), SkipQuitResponse: view.Bool("lmtp_skip_quit_response"),
		Concurrency: view.Int(service.Name + "_destination_concurrency_limit"), Processes: processLimit(service, view),
		Connect: view.Duration("lmtp_connect_timeout"), Hello: view.Duration("lmtp_lhlo_timeout"), StartTLS: view.Duration("lmtp_starttls_timeout"),
		XForwardTimeout: view.Duration("lmtp_xforward_timeout"), Mail: view.Duration("lmtp_mail_timeout"), Rcpt: view.Duration("lmtp_rcpt_timeout"),
		DataInit: view.Duration("lmtp_data_init_timeout"), DataTransfer: view.Duration("lmtp_data_xfer_timeout"), DataDone: view.Duration("lmtp_data_done_timeout"),
		Reset: view.Duration("lmtp_rset_timeout"), Quit: view.Duration("lmtp_quit_timeout"),
		CacheTime: view.Duration("lmtp_connection_cache_time_limit"), ReuseTime: view.Duration("lmtp_connection_reuse_time_limit"),
		ReuseCount: view.Int("lmtp_connection_reuse_count_limit"),
	}
	if !view.Bool("lmtp_connection_cache_on_demand") {
		options.CacheOnly = append([]string{}, view.List("lmtp_connection_cache_destinations")...)
	}
	for _, keyword := range view.List("lmtp_discard_lhlo_keywords") {
		options.Discard = append(options.Discard, strings.ToUpper(keyword))
	}
	options.TLS = b.clientTLS(view)
	if view.Bool("lmtp_sasl_auth_enable") {
		options.Password = b.passwords(view)
	}
	return deliver.NewLMTP(options)
}

// pipeAgent makes what pipe(8) is for a service of master.cf.
func (b *builder) pipeAgent(service *postfix.Service) (*deliver.Pipe, error) {
	view := service.View()
	var run deliver.Run
	if root := b.options.Root; root != nil {
		run = func(ctx context.Context, argv []string, input, output *os.File) (deliver.Ended, error) {
			ended, err := root.Run(ctx, service.Name, argv, input, output)
			return deliver.Ended(ended), err
		}
	}
	return deliver.NewPipe(deliver.PipeOptions{
		Service: service.Name, Run: run, Program: view.String("syslog_name") + "/" + service.Command, Log: b.postfixLog, Attributes: service.Args,
		QueueDirectory: view.String("queue_directory"), Environment: deliver.Environment(view.List("export_environment"), b.getenv),
		Delimiter: view.String("recipient_delimiter"), TimeLimit: view.Duration(service.Name + "_time_limit"), Processes: processLimit(service, view),
		Identity: b.identity,
	})
}

func (b *builder) getenv(name string) string {
	if b.options.Getenv == nil {
		return ""
	}
	return b.options.Getenv(name)
}

// commandIdentity is whom the user= of a pipe service names, which is never root.
func commandIdentity(name, group string) (*child.Identity, error) {
	id, err := child.Lookup(name)
	if err != nil {
		return nil, fmt.Errorf("user=%s: %w", name, err)
	}
	if group != "" {
		found, err := user.LookupGroup(group)
		if err != nil {
			return nil, fmt.Errorf("user=%s:%s: %w", name, group, err)
		}
		if id.GID, err = strconv.Atoi(found.Gid); err != nil {
			return nil, fmt.Errorf("user=%s:%s: %w", name, group, err)
		}
	}
	if id.UID == 0 || id.GID == 0 {
		return nil, fmt.Errorf("user=%s has root privileges", name)
	}
	return id, nil
}

// ownedByMail tells why an identity is the mail system's own, which commands do not get: they could do with the mail what they like.
func ownedByMail(id, worker *child.Identity) error {
	if id.UID == worker.UID || id.GID == worker.GID {
		return fmt.Errorf("user=%s has the user or group of the mail system's owner, mail_owner: give commands a user of their own", id.Name)
	}
	return nil
}

// identity is whom a command of a user runs as. A process that is not root can become nobody else; the helper of a worker can.
func (b *builder) identity(name, group string) (*syscall.Credential, error) {
	id, err := commandIdentity(name, group)
	switch {
	case err != nil:
		return nil, err
	case b.options.Root != nil:
		return nil, ownedByMail(id, &child.Identity{UID: os.Geteuid(), GID: os.Getegid()})
	case os.Geteuid() == id.UID && os.Getegid() == id.GID:
		return nil, nil
	case os.Geteuid() != 0:
		return nil, fmt.Errorf("user=%s: commands run as the server's own user only, unless root starts it", name)
	}
	credential := &syscall.Credential{Uid: uint32(id.UID), Gid: uint32(id.GID)}
	for _, g := range id.Groups {
		credential.Groups = append(credential.Groups, uint32(g))
	}
	return credential, nil
}

// processLimit is the service's process limit; 0 is none.
func processLimit(service *postfix.Service, view *postfix.View) int {
	if service.MaxProc < 0 {
		return view.Int("default_process_limit")
	}
	return service.MaxProc
}

// lookup finds the addresses of a host in the families of inet_protocols.
func (b *builder) lookup(view *postfix.View) func(ctx context.Context, host string) ([]netip.Addr, error) {
	protocols := view.List("inet_protocols")
	ipv4, ipv6 := hasWord(protocols, "ipv4") || hasWord(protocols, "all"), hasWord(protocols, "ipv6") || hasWord(protocols, "all")
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		if address, err := netip.ParseAddr(host); err == nil {
			return []netip.Addr{address}, nil
		}
		found, err := b.resolver.Addresses(ctx, host)
		if err != nil {
			return nil, err
		}
		var usable []netip.Addr
		for _, address := range found {
			if address.Unmap().Is4() && ipv4 || address.Unmap().Is6() && ipv6 {
				usable = append(usable, address.Unmap())
			}
		}
		if len(usable) == 0 {
			return nil, fmt.Errorf("no address of a family in inet_protocols")
		}
		return usable, nil
	}
}

// passwords looks up logins for servers: user:password by the server's name or the next hop.
func (b *builder) passwords(view *postfix.View) func(ctx context.Context, keys ...string) (user, password string, found bool, err error) {
	maps := view.List("lmtp_sasl_password_maps")
	return func(ctx context.Context, keys ...string) (user, password string, found bool, err error) {
		for _, key := range keys {
			for _, spec := range maps {
				value, ok, err := b.tables().get(spec, false).Lookup(ctx, key)
				if err != nil {
					return "", "", false, fmt.Errorf("lmtp_sasl_password_maps: %w", err)
				}
				if ok {
					user, password, _ = strings.Cut(value, ":")
					return user, password, true, nil
				}
			}
		}
		return "", "", false, nil
	}
}
