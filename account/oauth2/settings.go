package oauth2

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Limits: maxSettingsLine octets a line of the file, defaultTimeout and defaultConnections for what the file leaves open.
const (
	maxSettingsLine    = 64 << 10
	defaultTimeout     = 10 * time.Second
	defaultConnections = 10
)

// settings are those of dovecot-oauth2.conf.ext.
type settings struct {
	tokeninfoURL, introspectionURL, introspectionMode string
	forceIntrospection                                bool
	grantURL                                          string
	useGrantPassword                                  bool
	clientID, clientSecret                            string
	keyPrefix                                         string
	scope, usernameAttribute, usernameFormat          string
	activeAttribute, activeValue                      string
	issuers                                           []string
	openidConfigurationURL, passAttributes            string
	timeout                                           time.Duration
	connections                                       int

	caFile, caDir, certFile, keyFile string
	allowInvalidCert                 bool
}

func readSettings(path string) (settings, error) {
	s := settings{
		introspectionMode: "auth", usernameAttribute: "email", usernameFormat: "%Lu",
		timeout: defaultTimeout, connections: defaultConnections,
	}
	file, err := os.Open(path)
	if err != nil {
		return s, fmt.Errorf("oauth2: %w", err)
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	lines.Buffer(make([]byte, 0, 4096), maxSettingsLine)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		if !found {
			return s, fmt.Errorf("%s:%d: expecting NAME = VALUE", path, number)
		}
		if err := s.set(strings.TrimSpace(name), unquote(strings.TrimSpace(value))); err != nil {
			return s, fmt.Errorf("%s:%d: %w", path, number, err)
		}
	}
	if err := lines.Err(); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	if err := s.check(); err != nil {
		return s, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

func unquote(value string) string {
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		return strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(value[1 : n-1])
	}
	return value
}

func (s *settings) set(name, value string) error {
	texts := map[string]*string{
		"tokeninfo_url": &s.tokeninfoURL, "introspection_url": &s.introspectionURL, "introspection_mode": &s.introspectionMode,
		"grant_url": &s.grantURL, "client_id": &s.clientID, "client_secret": &s.clientSecret, "scope": &s.scope,
		"username_attribute": &s.usernameAttribute, "username_format": &s.usernameFormat, "active_attribute": &s.activeAttribute,
		"active_value": &s.activeValue, "openid_configuration_url": &s.openidConfigurationURL, "pass_attrs": &s.passAttributes,
		"tls_ca_cert_file": &s.caFile, "tls_ca_cert_dir": &s.caDir, "tls_cert_file": &s.certFile, "tls_key_file": &s.keyFile,
	}
	flags := map[string]*bool{"force_introspection": &s.forceIntrospection, "use_grant_password": &s.useGrantPassword, "tls_allow_invalid_cert": &s.allowInvalidCert}
	if text, ok := texts[name]; ok {
		*text = value
		return nil
	}
	if flag, ok := flags[name]; ok {
		var err error
		*flag, err = yesNo(name, value)
		return err
	}
	switch name {
	case "issuers":
		s.issuers = strings.Fields(value)
	case "timeout_msecs":
		ms, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return fmt.Errorf("timeout_msecs: %q is no number of milliseconds", value)
		}
		if ms > 0 {
			s.timeout = time.Duration(ms) * time.Millisecond
		}
	case "max_parallel_connections":
		n, err := strconv.ParseUint(value, 10, 16)
		if err != nil || n == 0 {
			return fmt.Errorf("max_parallel_connections: %q is no number of connections", value)
		}
		s.connections = int(n)
	case "local_validation_key_dict":
		prefix, ok := strings.CutPrefix(value, "fs:posix:prefix=")
		if !ok && value != "" {
			return fmt.Errorf("local_validation_key_dict: %q is not supported by this version: use fs:posix:prefix=DIRECTORY/", value)
		}
		s.keyPrefix = prefix
	case "debug", "rawlog_dir", "max_pipelined_requests", "tls_cipher_suite":
		// They change nothing that a client sees; raw logs would hold tokens.
	default:
		return fmt.Errorf("unknown setting: %s", name)
	}
	return nil
}

func yesNo(name, value string) (bool, error) {
	switch strings.ToLower(value) {
	case "yes", "y", "true", "1":
		return true, nil
	case "no", "n", "false", "0":
		return false, nil
	}
	return false, fmt.Errorf("%s: %q is neither yes nor no", name, value)
}

func (s *settings) check() error {
	switch s.introspectionMode {
	case "auth", "get", "post":
		if s.introspectionURL == "" && s.tokeninfoURL == "" {
			return errors.New("oauth2: tokeninfo_url or introspection_url is missing (or introspection_mode = local)")
		}
	case "local":
		if s.keyPrefix == "" {
			return errors.New("oauth2: introspection_mode = local needs local_validation_key_dict")
		}
	default:
		return fmt.Errorf("introspection_mode: %q is none of auth, get, post and local", s.introspectionMode)
	}
	if s.useGrantPassword && s.grantURL == "" {
		return errors.New("oauth2: use_grant_password = yes needs grant_url")
	}
	for name, text := range map[string]string{"tokeninfo_url": s.tokeninfoURL, "introspection_url": s.introspectionURL, "grant_url": s.grantURL} {
		if text == "" {
			continue
		}
		if u, err := url.Parse(text); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return fmt.Errorf("%s: %q is no http or https URL", name, text)
		}
	}
	return nil
}

// httpClient makes the client of the endpoints. It follows no redirection: the token is for this server alone.
func (s *settings) httpClient() (*http.Client, error) {
	config := &tls.Config{InsecureSkipVerify: s.allowInvalidCert, MinVersion: tls.VersionTLS12}
	files := []string{}
	if s.caFile != "" {
		files = append(files, s.caFile)
	}
	if s.caDir != "" {
		found, err := filepath.Glob(filepath.Join(s.caDir, "*"))
		if err != nil {
			return nil, fmt.Errorf("oauth2: tls_ca_cert_dir: %w", err)
		}
		files = append(files, found...)
	}
	if len(files) > 0 {
		config.RootCAs = x509.NewCertPool()
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("oauth2: %w", err)
		}
		if !config.RootCAs.AppendCertsFromPEM(text) && name == s.caFile {
			return nil, fmt.Errorf("oauth2: tls_ca_cert_file %s holds no certificate", name)
		}
	}
	if s.certFile != "" {
		pair, err := tls.LoadX509KeyPair(s.certFile, s.keyFile)
		if err != nil {
			return nil, fmt.Errorf("oauth2: tls_cert_file and tls_key_file: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: config, MaxConnsPerHost: s.connections, MaxIdleConnsPerHost: s.connections, IdleConnTimeout: time.Minute},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}
