package service

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"postilion/account"
	"postilion/config/postfix"
	"postilion/mail/queueid"
	"postilion/mta/deliver"
	"postilion/mta/policy"
	"postilion/mta/route"
	"postilion/proto/smtp"
	"postilion/server/smtpd"
	"postilion/service/listen"
	"postilion/table"
	"postilion/table/matchlist"
)

// transportHalf builds what main.cf and master.cf ask for: every smtpd service with a network socket.
func (b *builder) transportHalf(ctx context.Context) error {
	ids := queueid.New(b.postfix.View().Bool("enable_long_queue_ids"), uint64(time.Now().UnixNano()))
	for _, t := range b.transports() {
		if err := t.build(ctx, ids); err != nil {
			return fmt.Errorf("%s: service %s: %w", t.service.Pos, t.service.Name, err)
		}
	}
	b.makeAgents()
	return nil
}

// transports are the smtpd services that are served, not yet built.
func (b *builder) transports() []*transport {
	var list []*transport
	for _, s := range b.postfix.Services() {
		if s.Command == "smtpd" && s.Type == "inet" {
			list = append(list, &transport{builder: b, service: s, view: s.View(), log: b.postfixLog, tables: b.tables()})
		}
	}
	return list
}

// tables opens each table of a configuration once, whoever asks for it.
func (b *builder) tables() *tables {
	if b.sharedTables == nil {
		b.sharedTables = &tables{builder: b, open: map[string]table.Table{}}
	}
	return b.sharedTables
}

type tables struct {
	builder *builder
	open    map[string]table.Table
}

// aliasesPrefix marks tables whose text has the form of aliases(5).
const aliasesPrefix = "aliases "

func (t *tables) get(spec string, aliases bool) table.Table {
	key := spec
	if aliases {
		key = aliasesPrefix + spec
	}
	if opened, ok := t.open[key]; ok {
		return opened
	}
	opened := table.OpenLazily(spec, t.tableOptions(aliases))
	t.open[key] = opened
	return opened
}

func (t *tables) tableOptions(aliases bool) table.Options {
	return table.Options{
		Directory: absoluteDir(t.builder.options.PostfixDir), Aliases: aliases,
		NoUTF8: !t.builder.postfix.View().Bool("smtputf8_enable"),
		Warn:   func(text string) { t.builder.postfixLog.Warn(text) },
		Getenv: t.builder.options.Getenv, OpenFile: t.builder.options.open,
	}
}

func absoluteDir(dir string) string {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		return dir
	}
	return absolute
}

// transport is one smtpd service under construction.
type transport struct {
	builder *builder
	service *postfix.Service
	view    *postfix.View
	log     *slog.Logger
	tables  *tables
	router  *route.Router
	rules   policy.Checker
}

// route makes the router, which policy and acceptor need.
func (t *transport) route() {
	t.router = route.New(t.view, route.Options{
		Open: t.tables.get, LocalAddresses: ownAddresses(t.view), Known: t.known,
	})
	if err := t.router.Broken(); err != nil {
		t.log.Error(err.Error())
	}
}

func (t *transport) build(ctx context.Context, ids *queueid.Sequence) error {
	t.route()
	checker, limits, err := t.policy()
	if err != nil {
		return err
	}
	t.rules = checker
	tlsConfig, err := postfixTLS(t.view, &t.builder.certificates)
	if err != nil {
		return err
	}
	auth, err := t.auth()
	if err != nil {
		return err
	}
	options := t.options()
	options.Checker, options.Auth, options.Limits = checker, auth, limits
	options.Names = t.names()
	options.QueueIDs, options.Spool, options.Log = ids, t.builder.spool, t.log
	accept := acceptor{t.acceptor()}
	options.Accept, options.Begin = accept, accept.begin
	mode := "no TLS"
	if tlsConfig != nil {
		options.TLS = func() (*tls.Config, error) { return tlsConfig, nil }
		mode = "STARTTLS"
		if options.WrapperMode {
			mode = "TLS"
		}
	}
	server, err := smtpd.New(options)
	if err != nil {
		return err
	}
	t.builder.sessions = append(t.builder.sessions, server.Sessions)
	addresses, err := t.addresses(ctx)
	for _, e := range addresses {
		e.Protocol, e.TLS, e.serve = t.protocol(), mode, server.Serve
		t.builder.endpoints = append(t.builder.endpoints, e)
	}
	return err
}

// protocol is the service's name as an administrator thinks of it.
func (t *transport) protocol() string {
	switch port := t.service.Name[strings.LastIndexByte(t.service.Name, ':')+1:]; port {
	case "submission", "587":
		return "submission"
	case "submissions", "smtps", "465":
		return "submissions"
	}
	if name := t.view.String("syslog_name"); strings.HasSuffix(name, "/submission") || strings.HasSuffix(name, "/submissions") {
		return name[strings.LastIndexByte(name, '/')+1:]
	}
	return "smtp"
}

// addresses are the sockets of the service: its own host, or inet_interfaces.
func (t *transport) addresses(ctx context.Context) ([]Endpoint, error) {
	name := t.service.Name
	host, port := "", name
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		host, port = strings.Trim(name[:i], "[]"), name[i+1:]
	}
	number, err := net.DefaultResolver.LookupPort(ctx, "tcp", port)
	if err != nil {
		return nil, fmt.Errorf("%s: unknown port %q: %w", t.service.Pos, port, err)
	}
	port = strconv.Itoa(number)
	if host != "" {
		return []Endpoint{{Address: listen.TCP(t.network(), host, port)}}, nil
	}
	var endpoints []Endpoint
	for _, word := range t.view.List("inet_interfaces") {
		switch word {
		case "all":
			if t.hasFamily("ipv4") {
				endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp4", "0.0.0.0", port)})
			}
			if t.hasFamily("ipv6") {
				endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp6", "::", port), Optional: true})
			}
		case "loopback-only":
			if t.hasFamily("ipv4") {
				endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp4", "127.0.0.1", port)})
			}
			if t.hasFamily("ipv6") {
				endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp6", "::1", port), Optional: true})
			}
		default:
			endpoints = append(endpoints, Endpoint{Address: listen.TCP(t.network(), strings.Trim(word, "[]"), port)})
		}
	}
	return endpoints, nil
}

func (t *transport) hasFamily(name string) bool {
	words := t.view.List("inet_protocols")
	return hasWord(words, name) || hasWord(words, "all")
}

func (t *transport) network() string {
	switch {
	case !t.hasFamily("ipv6"):
		return "tcp4"
	case !t.hasFamily("ipv4"):
		return "tcp6"
	}
	return "tcp"
}

// ownAddresses are inet_interfaces and proxy_interfaces as addresses.
func ownAddresses(view *postfix.View) []netip.Addr {
	return localAddresses(append(view.List("inet_interfaces"), view.List("proxy_interfaces")...))
}

// localAddresses are the addresses that the words of inet_interfaces mean.
func localAddresses(words []string) []netip.Addr {
	var found []netip.Addr
	for _, word := range words {
		switch word {
		case "all":
			found = append(found, interfaceAddresses(false)...)
		case "loopback-only":
			found = append(found, interfaceAddresses(true)...)
		default:
			if address, err := netip.ParseAddr(strings.Trim(word, "[]")); err == nil {
				found = append(found, address)
			}
		}
	}
	return found
}

func interfaceAddresses(loopbackOnly bool) []netip.Addr {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	var found []netip.Addr
	for _, a := range addresses {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && (!loopbackOnly || prefix.Addr().IsLoopback()) {
			found = append(found, prefix.Addr())
		}
	}
	return found
}

// hosts makes a client matcher of a list parameter; a list that cannot be read matches nobody, and that is logged.
func (t *transport) hosts(name string) func(clientName string, address netip.Addr) bool {
	parents := hasWord(t.view.List("parent_domain_matches_subdomains"), name)
	list, err := matchlist.New(name, t.view.List(name), matchlist.Options{
		Open:          func(spec string) (matchlist.Table, error) { return t.tables.get(spec, false), nil },
		ParentDomains: parents, Where: t.view.Where(name).String(),
	})
	if err != nil {
		t.log.Error(err.Error())
		return nil
	}
	if list.Empty() {
		return nil
	}
	return func(clientName string, address netip.Addr) bool {
		match, err := list.Host(context.Background(), clientName, address)
		if err != nil {
			t.log.Error(err.Error())
		}
		return match.Found
	}
}

// acceptor adapts the mailbox acceptor to the server.
type acceptor struct{ *deliver.Acceptor }

func (a acceptor) begin() smtpd.Transaction { return a.Plan() }

// Accept implements smtpd.Acceptor.
func (a acceptor) Accept(ctx context.Context, mail *smtpd.Mail) (string, error) {
	for _, effect := range mail.Effects {
		if effect.Kind == "HOLD" || effect.Kind == "FILTER" || effect.Kind == "REDIRECT" || effect.Kind == "BCC" {
			return "", &smtpd.Reply{Text: "451 4.3.0 Error: mail transport unavailable", Cause: fmt.Errorf("action %s needs a queue, which this version does not have", effect.Kind)}
		}
	}
	plan, _ := mail.Transaction.(*deliver.Plan)
	err := a.Acceptor.Accept(ctx, mail.Envelope, mail.Content, mail.Message, plan)
	if err == nil {
		return "", nil
	}
	if refused, ok := err.(*deliver.ReplyError); ok {
		return "", &smtpd.Reply{Text: refused.Reply, Cause: refused.Err}
	}
	return "", err
}

// hop says what a transport of master.cf is.
func (t *transport) hop(transport, nexthop string) (deliver.Hop, deliver.Agent) {
	service, ok := t.builder.postfix.Service(transport, "unix")
	if !ok {
		return deliver.Unbuilt, nil
	}
	switch service.Command {
	case "local":
		return deliver.ToLocal, nil
	case "error":
		if service.Name == "retry" {
			return deliver.ToRetry, nil
		}
		return deliver.ToError, nil
	case "discard":
		return deliver.ToDiscard, nil
	case "lmtp":
		if t.builder.mailbox != nil && t.builder.mailboxSockets[t.socketName(nexthop)] {
			return deliver.ToMailbox, nil
		}
	}
	if agent := t.builder.agent(service); agent != nil {
		return deliver.ToAgent, agent
	}
	return deliver.Unbuilt, nil
}

// socketName is the form in which mailboxSockets and authSockets are kept: unix:/path or inet:host:port.
func (t *transport) socketName(nexthop string) string {
	if path, ok := strings.CutPrefix(nexthop, "unix:"); ok {
		queue := t.view.String("queue_directory")
		if strings.HasPrefix(path, queue+"/") {
			return "unix:" + path
		}
		return "unix:" + filepath.Join(queue, path)
	}
	host := strings.TrimPrefix(nexthop, "inet:")
	host = strings.NewReplacer("[", "", "]", "").Replace(host)
	return "inet:" + host
}

func (t *transport) acceptor() *deliver.Acceptor {
	return deliver.NewAcceptor(deliver.AcceptorOptions{
		Router: t.router, Mailbox: t.builder.mailbox, Hop: t.hop, MailboxTransport: t.view.String("mailbox_transport"), Log: t.log,
	})
}

// known answers for recipients of classes without a table when the transport leads to our own mailboxes.
func (t *transport) known(ctx context.Context, r *route.Resolution) (exists, decided bool, err error) {
	if hop, _ := t.hop(r.Transport, r.Nexthop); hop != deliver.ToMailbox {
		return false, false, nil
	}
	_, err = t.builder.mailbox.Resolve(ctx, r.Recipient)
	if err == nil {
		return true, true, nil
	}
	if refused, ok := err.(*deliver.ReplyError); ok && !refused.Temporary {
		return false, true, nil
	}
	return false, true, err
}

func (t *transport) auth() (account.Authenticator, error) {
	if !t.view.Bool("smtpd_sasl_auth_enable") {
		return nil, nil
	}
	return t.authenticator()
}

// options fills in what main.cf says, and the matchers that need tables.
func (t *transport) options() smtpd.Options {
	o := smtpd.OptionsFrom(t.view)
	o.ServiceName = t.service.Name
	o.AuthService = first(t.view.String("smtpd_sasl_service"), "smtp")
	o.ConnectionLimit = t.connectionLimit()
	space := t.queueSpace()
	o.QueueSpace = func(size int64) bool { return t.room(size) && space(size) }
	o.Hoggers = t.hosts("smtpd_client_event_limit_exceptions")
	o.BareNewlineExclusions = t.hosts("smtpd_forbid_bare_newline_exclusions")
	o.XClientHosts, o.XForwardHosts = t.hosts("smtpd_authorized_xclient_hosts"), t.hosts("smtpd_authorized_xforward_hosts")
	o.SASLExceptionsNetworks = t.hosts("smtpd_sasl_exceptions_networks")
	o.DiscardEHLOKeywords, o.RejectFooterMap = t.discardedKeywords(), t.footerMap()
	o.LocalHeaderRewriteClients = t.localRewriteClients()
	o.ContentChecks = t.contentChecks()
	if !t.view.IsSet("smtpd_forbid_bare_newline") {
		// Safer than Postfix 3.7's "no", which lets mail be smuggled; "smtpd_forbid_bare_newline = no" gives that back.
		o.BareNewline = smtp.BareNewlineNormalize
	}
	announced := t.view.List("postilion_smtpd_ehlo_keywords")
	o.BinaryMIME, o.Settings.Limits = hasWord(announced, "BINARYMIME"), hasWord(announced, "LIMITS")
	o.EnforceTLS = smtpdTLSLevel(t.view) == "encrypt"
	o.TLSAuthOnly = o.TLSAuthOnly || o.EnforceTLS
	return o
}

// room is the answer to MAIL: a message that comes in needs memory as long as it does.
func (t *transport) room(int64) bool { return t.builder.memoryShort == nil || !t.builder.memoryShort() }

// connectionLimit is the service's process limit times what one of our sessions costs less than a process: at least 1,000.
func (t *transport) connectionLimit() int {
	limit := t.service.MaxProc
	if limit < 0 {
		limit = t.view.Int("default_process_limit")
	}
	if limit == 0 {
		return 20_000
	}
	return max(1000, 10*limit)
}

func (t *transport) discardedKeywords() func(address netip.Addr) smtp.Keywords {
	fixed, unknown := smtp.ParseKeywords(t.view.String("smtpd_discard_ehlo_keywords"))
	if len(unknown) > 0 {
		t.log.Warn(fmt.Sprintf("%s: smtpd_discard_ehlo_keywords: unknown keywords %v", t.view.Where("smtpd_discard_ehlo_keywords"), unknown))
	}
	maps := t.view.List("smtpd_discard_ehlo_keyword_address_maps")
	return func(address netip.Addr) smtp.Keywords {
		for _, spec := range maps {
			value, found, err := t.tables.get(spec, false).Lookup(context.Background(), address.Unmap().String())
			if err != nil {
				t.log.Error("smtpd_discard_ehlo_keyword_address_maps: " + err.Error())
			}
			if found {
				set, _ := smtp.ParseKeywords(value)
				return set
			}
		}
		return fixed
	}
}

func (t *transport) footerMap() func(reply string) (string, bool) {
	maps := t.view.List("smtpd_reject_footer_maps")
	if len(maps) == 0 {
		return nil
	}
	return func(reply string) (string, bool) {
		for _, spec := range maps {
			value, found, err := t.tables.get(spec, false).Lookup(context.Background(), reply)
			if err != nil {
				t.log.Error("smtpd_reject_footer_maps: " + err.Error())
			}
			if found {
				return value, true
			}
		}
		return "", false
	}
}

// localRewriteClients is local_header_rewrite_clients, of which the address tests and logins are understood.
func (t *transport) localRewriteClients() func(session *policy.Session, socket netip.Addr) bool {
	words := t.view.List("local_header_rewrite_clients")
	ours := ownAddresses(t.view)
	networks := t.hosts("mynetworks")
	return func(s *policy.Session, socket netip.Addr) bool {
		for _, word := range words {
			switch word {
			case "permit_inet_interfaces":
				for _, a := range ours {
					if a.Unmap() == socket.Unmap() {
						return true
					}
				}
			case "permit_mynetworks":
				if networks != nil && networks(s.ClientName, s.ClientAddress) {
					return true
				}
			case "permit_sasl_authenticated":
				if s.SASLUsername != "" {
					return true
				}
			case "permit_tls_all_clientcerts":
				if s.Encryption.Trusted {
					return true
				}
			}
		}
		return false
	}
}
