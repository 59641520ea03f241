package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"

	"postilion/account"
	"postilion/config/dovecot"
	"postilion/service/listen"
)

// Endpoint is one socket and what is served there.
type Endpoint struct {
	// Protocol is smtp, submission, lmtp, imap, pop3 or auth.
	Protocol string
	// TLS is "TLS" from the first octet, "STARTTLS", or "no TLS".
	TLS     string
	Address listen.Address
	// Optional endpoints are left out when the host lacks their address family.
	Optional bool

	serve func(ctx context.Context, listener net.Listener) error
}

func (e *Endpoint) String() string {
	return fmt.Sprintf("%s %s (%s)", e.Protocol, e.Address, e.TLS)
}

// lacksFamily tells that the host has no such addresses at all.
func lacksFamily(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EPROTONOSUPPORT)
}

// dovecotAddresses are the sockets of an inet_listener: its own address or the listen setting's, "*" and "::" meaning all.
func dovecotAddresses(view *dovecot.View, listener *dovecot.Section) []Endpoint {
	port := listener.Int("port")
	if port == 0 {
		return nil
	}
	hosts := listener.List("address")
	if len(hosts) == 0 {
		hosts = view.List("listen")
	}
	var endpoints []Endpoint
	for _, host := range hosts {
		switch host {
		case "*":
			endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp4", "0.0.0.0", strconv.Itoa(port))})
		case "::", "[::]":
			endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp6", "::", strconv.Itoa(port)), Optional: true})
		default:
			endpoints = append(endpoints, Endpoint{Address: listen.TCP("tcp", strings.Trim(host, "[]"), strconv.Itoa(port))})
		}
	}
	return endpoints
}

// unixAddress is the socket of a unix_listener; its path is below base_dir unless it is absolute.
func unixAddress(view *dovecot.View, service, listener *dovecot.Section) (listen.Address, error) {
	path := listener.Name()
	if !strings.HasPrefix(path, "/") {
		path = strings.TrimSuffix(view.String("base_dir"), "/") + "/" + path
	}
	address := listen.Address{Network: "unix", Address: path, UID: -1, GID: -1}
	if mode := listener.Int("mode"); mode > 0 {
		address.Mode = fileMode(mode)
	}
	var err error
	if address.UID, err = account.UserID(first(listener.String("user"), service.String("user"))); err != nil {
		return address, fmt.Errorf("%s: user of socket %s: %w", listener.Position(), path, err)
	}
	if address.GID, err = account.GroupID(first(listener.String("group"), service.String("group"))); err != nil {
		return address, fmt.Errorf("%s: group of socket %s: %w", listener.Position(), path, err)
	}
	return address, nil
}
