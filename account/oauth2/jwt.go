package oauth2

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Limits: maxKey octets of a key file, maxKeys files whose keys are kept, maxKeyPart octets of a name in their paths.
const (
	maxKey     = 64 << 10
	maxKeys    = 1000
	maxKeyPart = 200
)

// validate checks a JSON Web Token and returns its claims. The rules are Dovecot's: typ, exp and sub must be there; with client_id aud must name it;
// with issuers iss must be one of them; with scope the token must name it.
func (c *Checker) validate(token string) (claims, error) {
	if strings.Count(token, ".") != 2 {
		return nil, fmt.Errorf("%w: not a JWT token", ErrInvalid)
	}
	var unavailable error
	parser := jwt.NewParser(jwt.WithJSONNumber(), jwt.WithoutClaimsValidation())
	parsed, err := parser.Parse(token, func(t *jwt.Token) (any, error) {
		key, err := c.keyFor(t)
		if err != nil && !errors.Is(err, ErrInvalid) {
			unavailable = err
		}
		return key, err
	})
	switch {
	case unavailable != nil:
		return nil, unavailable
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	members, ok := parsed.Claims.(jwt.MapClaims)
	if !ok {
		return nil, fmt.Errorf("%w: claims are no object", ErrInvalid)
	}
	known := flatten(members)
	if err := c.checkTimes(known); err != nil {
		return nil, err
	}
	return known, c.checkClaims(known)
}

// checkTimes compares exp, nbf and iat with the clock.
func (c *Checker) checkTimes(known claims) error {
	now := c.options.Now().Unix()
	seconds := func(name string) (int64, bool, error) {
		text, has := known[name]
		if !has {
			return 0, false, nil
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, true, fmt.Errorf("%w: malformed '%s' field", ErrInvalid, name)
		}
		return n, true, nil
	}
	exp, has, err := seconds("exp")
	switch {
	case err != nil:
		return err
	case !has:
		return fmt.Errorf("%w: missing 'exp' field", ErrInvalid)
	case exp < now:
		return fmt.Errorf("%w: token has expired", ErrInvalid)
	}
	nbf, _, err := seconds("nbf")
	switch {
	case err != nil:
		return err
	case nbf > now:
		return fmt.Errorf("%w: token is not valid yet", ErrInvalid)
	}
	iat, _, err := seconds("iat")
	switch {
	case err != nil:
		return err
	case iat > now:
		return fmt.Errorf("%w: token is issued in future", ErrInvalid)
	}
	return nil
}

func (c *Checker) checkClaims(known claims) error {
	s := &c.settings
	if known["sub"] == "" {
		return fmt.Errorf("%w: missing 'sub' field", ErrInvalid)
	}
	if issuer, has := known["iss"]; len(s.issuers) > 0 && !slices.Contains(s.issuers, issuer) {
		if !has {
			return fmt.Errorf("%w: token is missing 'iss' field", ErrInvalid)
		}
		return fmt.Errorf("%w: issuer '%s' is not allowed", ErrInvalid, issuer)
	}
	if s.clientID != "" && !slices.Contains(strings.Fields(known["aud"]), s.clientID) {
		return fmt.Errorf("%w: client_id not found in aud field", ErrInvalid)
	}
	return nil
}

// keyFor returns the key that the token's header and azp name.
func (c *Checker) keyFor(t *jwt.Token) (any, error) {
	if kind, _ := t.Header["typ"].(string); kind != "JWT" {
		return nil, fmt.Errorf("%w: 'typ' is not JWT", ErrInvalid)
	}
	id, has := t.Header["kid"]
	name, isText := id.(string)
	switch {
	case !has:
		name = "default"
	case !isText || name == "":
		return nil, fmt.Errorf("%w: 'kid' field is empty", ErrInvalid)
	}
	party := "default"
	if members, ok := t.Claims.(jwt.MapClaims); ok {
		if azp, _ := members["azp"].(string); azp != "" {
			party = azp
		}
	}
	return c.keys.key(party, t.Method.Alg(), name)
}

// keyFiles are the keys below the prefix of local_validation_key_dict, at AZP/ALG/KID: base64 of the secret for HS*, else a public key or
// certificate in PEM. A file is read again when it changed.
type keyFiles struct {
	prefix string

	mu   sync.Mutex
	keys map[string]keyFile
}

type keyFile struct {
	key      any
	modified time.Time
	size     int64
}

// pathPart makes a name that a token gives one component of a path.
func pathPart(name string) (string, bool) {
	if name == "." || name == ".." || len(name) > maxKeyPart || strings.ContainsAny(name, "\x00\r\n") {
		return "", false
	}
	return strings.NewReplacer("%", "%25", "/", "%2f").Replace(name), true
}

func (k *keyFiles) key(party, algorithm, id string) (any, error) {
	notFound := fmt.Errorf("%w: %s key '%.100s' not found", ErrInvalid, algorithm, id)
	azp, ok1 := pathPart(party)
	kid, ok2 := pathPart(id)
	if !ok1 || !ok2 {
		return nil, notFound
	}
	path := k.prefix + azp + "/" + algorithm + "/" + kid
	stat, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound
	case err != nil:
		return nil, fmt.Errorf("validation key: %w", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if kept, ok := k.keys[path]; ok && kept.modified.Equal(stat.ModTime()) && kept.size == stat.Size() {
		return kept.key, nil
	}
	if stat.Size() > maxKey || !stat.Mode().IsRegular() {
		return nil, fmt.Errorf("validation key %s: no file of at most %d octets", path, maxKey)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("validation key: %w", err)
	}
	key, err := parseKey(algorithm, text)
	if err != nil {
		return nil, fmt.Errorf("validation key %s: %w", path, err)
	}
	if k.keys == nil || len(k.keys) >= maxKeys {
		k.keys = map[string]keyFile{}
	}
	// A file that changed within the clock's grain may change once more without a new time.
	if time.Since(stat.ModTime()) > 2*time.Second {
		k.keys[path] = keyFile{key, stat.ModTime(), stat.Size()}
	}
	return key, nil
}

// parseKey reads a key for the algorithm; a key of another kind is refused, so that no algorithm can be used with a key made for another.
func parseKey(algorithm string, text []byte) (any, error) {
	if strings.HasPrefix(algorithm, "HS") {
		secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
		if err != nil || len(secret) == 0 {
			return nil, errors.New("no base64 of a secret")
		}
		return secret, nil
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("no PEM")
	}
	var key any
	var err error
	if block.Type == "CERTIFICATE" {
		certificate, parseErr := x509.ParseCertificate(block.Bytes)
		if parseErr != nil {
			return nil, parseErr
		}
		key = certificate.PublicKey
	} else if key, err = x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return nil, err
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if strings.HasPrefix(algorithm, "RS") || strings.HasPrefix(algorithm, "PS") {
			return k, nil
		}
	case *ecdsa.PublicKey:
		bits := map[string]int{"ES256": 256, "ES384": 384, "ES512": 521}[algorithm]
		if bits != 0 && k.Curve.Params().BitSize == bits {
			return k, nil
		}
	case ed25519.PublicKey:
		if algorithm == "EdDSA" {
			return k, nil
		}
	}
	return nil, fmt.Errorf("a key of kind %T does not fit %s", key, algorithm)
}
