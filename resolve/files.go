package resolve

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// fileCheck is how often resolv.conf and the hosts file are looked at for changes; maxHostsFile is the limit in octets of the latter.
const (
	fileCheck    = 5 * time.Second
	maxHostsFile = 4 << 20
)

// serverList reads the servers of resolv.conf and follows changes of the file.
type serverList struct {
	path  string
	fixed []string

	mu      sync.Mutex
	servers []string
	checked time.Time
	stamp   time.Time
}

func (l *serverList) get() ([]string, error) {
	if len(l.fixed) > 0 {
		return l.fixed, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.servers != nil && now.Sub(l.checked) < fileCheck {
		return l.servers, nil
	}
	l.checked = now
	info, err := os.Stat(l.path)
	if err == nil && l.servers != nil && info.ModTime().Equal(l.stamp) {
		return l.servers, nil
	}
	config, err := dns.ClientConfigFromFile(l.path)
	if err != nil {
		if l.servers != nil {
			return l.servers, nil
		}
		return nil, fmt.Errorf("name servers: %w", err)
	}
	l.servers = nil
	for _, host := range config.Servers {
		l.servers = append(l.servers, net.JoinHostPort(host, config.Port))
	}
	if len(l.servers) == 0 {
		l.servers = []string{"127.0.0.1:53"}
	}
	if info != nil {
		l.stamp = info.ModTime()
	}
	return l.servers, nil
}

// hostsFile is hosts(5), read again when it changed.
type hostsFile struct {
	path string

	mu        sync.Mutex
	checked   time.Time
	stamp     time.Time
	byName    map[string][]netip.Addr
	byAddress map[netip.Addr][]string
}

func (h *hostsFile) refresh() {
	now := time.Now()
	if h.path == "-" || (h.byName != nil && now.Sub(h.checked) < fileCheck) {
		return
	}
	h.checked = now
	info, err := os.Stat(h.path)
	if err != nil || info.Size() > maxHostsFile || (h.byName != nil && info.ModTime().Equal(h.stamp)) {
		if h.byName == nil {
			h.byName, h.byAddress = map[string][]netip.Addr{}, map[netip.Addr][]string{}
		}
		return
	}
	h.stamp = info.ModTime()
	h.byName, h.byAddress = map[string][]netip.Addr{}, map[netip.Addr][]string{}
	file, err := os.Open(h.path)
	if err != nil {
		return
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		text, _, _ := strings.Cut(lines.Text(), "#")
		fields := strings.Fields(text)
		if len(fields) < 2 {
			continue
		}
		address, err := netip.ParseAddr(fields[0])
		if err != nil {
			continue
		}
		address = address.Unmap()
		for _, name := range fields[1:] {
			key := strings.ToLower(name)
			h.byName[key] = append(h.byName[key], address)
		}
		h.byAddress[address] = append(h.byAddress[address], fields[1:]...)
	}
}

func (h *hostsFile) addresses(name string) []netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	return h.byName[strings.ToLower(strings.TrimSuffix(name, "."))]
}

func (h *hostsFile) names(address netip.Addr) []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.refresh()
	return h.byAddress[address.Unmap()]
}
