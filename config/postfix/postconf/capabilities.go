package postconf

import "io"

// tableTypes are the lookup table types of package table.
var tableTypes = []string{
	"btree", "cidr", "environ", "fail", "hash", "inline", "internal", "ldap", "memcache", "mysql", "pcre", "pgsql", "pipemap", "proxy",
	"randmap", "regexp", "socketmap", "sqlite", "static", "tcp", "texthash", "unionmap", "unix",
}

// showCapabilities lists what the program was built with: one word a line.
func (r *run) showCapabilities(mode byte) error {
	var words []string
	switch mode {
	case 'a':
		words = []string{"cyrus", "dovecot"}
	case 'A':
		words = []string{"cyrus"}
	case 'l':
		words = []string{"flock", "fcntl", "dotlock"}
	case 'm':
		words = tableTypes
	case 'T':
		switch r.tlsMode {
		case "compile-version", "run-version":
			words = []string{"Go crypto/tls"}
		case "public-key-algorithms":
			words = []string{"ecdsa", "ed25519", "rsa"}
		default:
			return fatalf("unknown 'postconf -T' mode: %s", r.tlsMode)
		}
	}
	for _, word := range words {
		if _, err := io.WriteString(r.stdout, word+"\n"); err != nil {
			return err
		}
	}
	return nil
}
