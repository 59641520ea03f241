package smtpd

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"postilion/mta/policy"
	"postilion/proto/haproxy"
	"postilion/proto/smtp"
)

const unknown = "unknown"

// peer is the other end of a connection, or who XCLIENT or a proxy says that it is.
type peer struct {
	name, reverse     string
	nameStatus        policy.NameStatus
	reverseStatus     policy.NameStatus
	address           netip.Addr
	port              string
	serverAddress     netip.Addr
	serverPort        string
	user, method      string
	xclient, xforward bool
	client            string
	// text is the address, or "unknown".
	text string
	// socket and socketServer are the ends of the connection, whatever XCLIENT says.
	socket, socketServer netip.Addr
}

// openPeer finds out who is there.
func (x *session) openPeer(ctx context.Context) error {
	remote, local := addressOf(x.conn.RemoteAddr()), addressOf(x.conn.LocalAddr())
	if x.options.UpstreamProxyProtocol {
		if err := x.conn.SetReadDeadline(time.Now().Add(x.options.UpstreamProxyTimeout)); err != nil {
			return fmt.Errorf("haproxy: %w", err)
		}
		proxied, err := haproxy.Read(x.conn)
		if err != nil {
			return fmt.Errorf("haproxy read from %s: %w", x.conn.RemoteAddr(), err)
		}
		if proxied.Source.IsValid() {
			remote, local = proxied.Source, proxied.Destination
		}
	}
	x.peer = peer{
		name: "localhost", reverse: "localhost",
		address: remote.Addr().Unmap().WithZone(""), port: strconv.Itoa(int(remote.Port())),
		serverAddress: local.Addr().Unmap().WithZone(""), serverPort: strconv.Itoa(int(local.Port())),
	}
	if !remote.IsValid() {
		x.peer.address, x.peer.port = netip.AddrFrom4([4]byte{127, 0, 0, 1}), "0"
	} else {
		x.peer.name, x.peer.reverse = unknown, unknown
		x.peer.nameStatus, x.peer.reverseStatus = policy.NameMissing, policy.NameMissing
		if x.options.Names != nil && !x.options.NoPeernameLookup {
			x.peer.name, x.peer.reverse, x.peer.nameStatus, x.peer.reverseStatus = x.options.Names.LookupClient(ctx, x.peer.address)
		}
	}
	x.peer.socket, x.peer.socketServer = x.peer.address, x.peer.serverAddress
	// XCLIENT gives away the right to XCLIENT, not that to XFORWARD.
	x.peer.xforward = x.options.XForwardHosts != nil && x.options.XForwardHosts(x.peer.name, x.peer.address)
	x.updatePeer()
	return nil
}

func addressOf(a net.Addr) netip.AddrPort {
	switch a := a.(type) {
	case *net.TCPAddr:
		return a.AddrPort()
	case interface{ AddrPort() netip.AddrPort }:
		return a.AddrPort()
	}
	return netip.AddrPort{}
}

// updatePeer renews what depends on name and address.
func (x *session) updatePeer() {
	p := &x.peer
	p.text = unknown
	if p.address.IsValid() {
		p.text = p.address.String()
	}
	p.client = p.name + "[" + p.text + "]"
	if x.options.ClientPortLogging {
		p.client += ":" + p.port
	}
	x.facts.ClientAddress, x.facts.ClientPort = p.address, p.port
	x.facts.ClientName, x.facts.ReverseName = p.name, p.reverse
	x.facts.NameStatus, x.facts.ReverseNameStatus = p.nameStatus, p.reverseStatus
	x.facts.ServerAddress, x.facts.ServerPort = p.serverAddress, p.serverPort
	x.facts.SASLMethod, x.facts.SASLUsername = p.method, p.user
}

// literal is the address as RFC 5321 writes it between brackets.
func (p *peer) literal() string {
	if p.address.Is6() {
		return "IPv6:" + p.text
	}
	return p.text
}

// enginePeer is what the engine shall know of the client now.
func (x *session) enginePeer() smtp.Peer {
	p, o := &x.peer, x.options
	in := func(list func(string, netip.Addr) bool) bool { return list != nil && list(p.name, p.address) }
	e := smtp.Peer{
		Client: p.client, XClient: in(o.XClientHosts), XForward: p.xforward, BareNewline: o.BareNewline,
		TLSOffered: o.TLS != nil && !o.WrapperMode, TLSActive: x.tls != nil,
	}
	if in(o.BareNewlineExclusions) {
		e.BareNewline = smtp.BareNewlineAllow
	}
	if o.DiscardEHLOKeywords != nil {
		e.Discard = o.DiscardEHLOKeywords(p.address)
	}
	if o.SASLAuthEnable && o.Auth != nil && (x.tls != nil || !o.TLSAuthOnly) {
		e.Auth = true
		if !in(o.SASLExceptionsNetworks) {
			e.Mechanisms = x.mechanisms()
		}
	}
	if o.RejectFooter != "" || o.RejectFooterMap != nil {
		e.Footer = x.footer
	}
	p.xclient = e.XClient
	return e
}

// footer adds smtpd_reject_footer to a reply: on a line of its own, or with \c on the same one.
func (x *session) footer(reply string) string {
	footer := x.options.RejectFooter
	if x.options.RejectFooterMap != nil {
		if found, ok := x.options.RejectFooterMap(reply); ok {
			footer = found
		}
	}
	if footer == "" {
		return reply
	}
	head := reply[:min(4, len(reply))]
	if len(reply) > 10 && reply[5] == '.' {
		if i := strings.IndexByte(reply[4:], ' '); i > 0 {
			head = reply[:4+i+1]
		}
	}
	footer = x.expandFooter(footer)
	if rest, ok := strings.CutPrefix(footer, `\c`); ok {
		reply, footer = reply+strings.SplitN(rest, `\n`, 2)[0], ""
		if _, more, found := strings.Cut(rest, `\n`); found {
			footer = more
		}
	}
	for line := range strings.SplitSeq(footer, `\n`) {
		if line != "" {
			reply += "\n" + head + strings.TrimLeft(line, " \t")
		}
	}
	return reply
}

func (x *session) expandFooter(footer string) string {
	var b strings.Builder
	for footer != "" {
		i := strings.IndexByte(footer, '$')
		if i < 0 {
			break
		}
		b.WriteString(footer[:i])
		footer = footer[i+1:]
		if rest, ok := strings.CutPrefix(footer, "$"); ok {
			b.WriteByte('$')
			footer = rest
			continue
		}
		var name string
		if len(footer) > 0 && (footer[0] == '{' || footer[0] == '(') {
			end := strings.IndexAny(footer, "})")
			if end < 0 {
				break
			}
			name, footer = footer[1:end], footer[end+1:]
		} else {
			end := 0
			for end < len(footer) && (footer[end] == '_' || footer[end] >= 'a' && footer[end] <= 'z') {
				end++
			}
			name, footer = footer[:end], footer[end:]
		}
		b.WriteString(x.footerValue(name))
	}
	return b.String() + footer
}

func (x *session) footerValue(name string) string {
	sender := x.engine.Envelope().Sender
	switch name {
	case "client":
		return x.peer.client
	case "client_address":
		return x.peer.text
	case "client_name":
		return x.peer.name
	case "client_port":
		return x.peer.port
	case "helo_name":
		return x.engine.Helo()
	case "reverse_client_name":
		return x.peer.reverse
	case "sasl_method":
		return x.peer.method
	case "sasl_username":
		return x.peer.user
	case "sender":
		if x.engine.InTransaction() && sender == "" {
			return "<>"
		}
		return sender
	case "sender_name":
		local, _, _ := strings.Cut(sender, "@")
		return local
	case "sender_domain":
		_, domain, _ := strings.Cut(sender, "@")
		return domain
	case "recipient":
		return x.facts.Recipient
	case "recipient_name":
		local, _, _ := strings.Cut(x.facts.Recipient, "@")
		return local
	case "recipient_domain":
		_, domain, _ := strings.Cut(x.facts.Recipient, "@")
		return domain
	case "server_name":
		return x.options.Hostname
	case "server_address":
		return x.peer.serverAddress.String()
	case "server_port":
		return x.peer.serverPort
	case "localtime":
		return x.options.Now().Format("Jan _2 15:04:05")
	}
	return ""
}

// admit counts the connection; false means that the client has too many and was told so.
func (x *session) admit() bool {
	o, p := x.options, &x.peer
	if !p.address.IsValid() || o.Hoggers != nil && o.Hoggers(p.name, p.address) {
		return true
	}
	n, ok := x.server.countHost(x, p.address)
	kind := "concurrency"
	if ok && o.Limits != nil {
		x.rated = true
		var exceeded bool
		if n, exceeded = o.Limits.Count(ConnectionCount, p.name, p.address); !exceeded {
			kind = "rate"
			n, exceeded = o.Limits.Count(ConnectionRate, p.name, p.address)
		}
		ok = !exceeded
	}
	if ok {
		return true
	}
	x.farewell("421 4.7.0 " + o.Hostname + " Error: too many connections from " + p.text + "\r\n")
	x.lines.warning(fmt.Sprintf("Connection %s limit exceeded: %d from %s for service %s", kind, n, p.client, o.ServiceName))
	return false
}

// overLimit books an event of a rate; true means that it is one too many, which is logged.
func (x *session) overLimit(kind Event, what string) bool {
	o, p := x.options, &x.peer
	if o.Limits == nil || p.xclient || o.Hoggers != nil && o.Hoggers(p.name, p.address) {
		return false
	}
	n, exceeded := o.Limits.Count(kind, p.name, p.address)
	if exceeded {
		x.lines.warning(fmt.Sprintf("%s limit exceeded: %d from %s for service %s", what, n, p.client, o.ServiceName))
	}
	return exceeded
}

// earlyTalker tells whether the client sent something before it was greeted.
func (x *session) earlyTalker() bool {
	conn, ok := x.conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return false
	}
	early := false
	err = raw.Control(func(fd uintptr) {
		var octet [1]byte
		n, _, failure := unix.Recvfrom(int(fd), octet[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		early = failure == nil && n > 0
	})
	return err == nil && early
}

// xclient takes over what the client says about itself; the engine starts the session over.
func (x *session) xclient(attributes []smtp.Attribute) {
	p := &x.peer
	gotReverse := false
	p.user, p.method = "", ""
	for _, a := range attributes {
		missing := a.Unavailable || a.Temporary
		status := policy.NameFound
		value := a.Value
		if missing {
			value, status = unknown, policy.NameMissing
		}
		if a.Temporary {
			status = policy.NameUnknownNow
		}
		switch a.Name {
		case "NAME":
			p.name, p.nameStatus = value, status
			if !gotReverse {
				p.reverse, p.reverseStatus = value, status
			}
		case "REVERSE_NAME":
			gotReverse = true
			p.reverse, p.reverseStatus = value, status
		case "ADDR":
			p.address, _ = netip.ParseAddr(a.Value)
		case "PORT":
			p.port = value
		case "DESTADDR":
			p.serverAddress, _ = netip.ParseAddr(a.Value)
		case "DESTPORT":
			p.serverPort = value
		case "LOGIN":
			if !missing && x.options.SASLAuthEnable {
				p.user, p.method = a.Value, "XCLIENT"
			}
		}
	}
	x.updatePeer()
	x.forwarded, x.connEffects, x.discardAll = nil, nil, false
	x.engine.SetPeer(x.enginePeer())
}

// xforward remembers where the next message came from.
func (x *session) xforward(attributes []smtp.Attribute) {
	if x.forwarded == nil {
		x.forwarded = map[string]string{}
	}
	for _, a := range attributes {
		if a.Value == "" {
			a.Value = unknown
		}
		x.forwarded[a.Name] = a.Value
	}
}
