package password

import (
	"bytes"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	//lint:ignore SA1019 PLAIN-MD4 is a scheme that old password files hold.
	"golang.org/x/crypto/md4"

	"postilion/proto/sasl"
)

// form says what a scheme's data is made of, for the encodings .hex and .b64.
type form uint8

// rawDigest data is text for a digest's octets; the zero form is the text itself.
const rawDigest form = 1

type scheme struct {
	name     string
	form     form
	text     func(raw []byte) string
	raw      func(text string) ([]byte, error)
	verify   func(data, user, password string) (bool, error)
	generate func(user, password string, rounds int) (string, error)
}

func (s *scheme) bytes(data string) []byte {
	if s.form == rawDigest {
		if raw, err := s.raw(data); err == nil {
			return raw
		}
	}
	return []byte(data)
}

const (
	scramIterations  = 4096
	pbkdf2Iterations = 5000
	otpSequence      = 1024
)

func find(name string) *scheme {
	for _, s := range schemes() {
		if s.name == name {
			return &s
		}
	}
	return nil
}

func schemes() []scheme {
	hexText, hexRaw := hex.EncodeToString, hex.DecodeString
	b64Text, b64Raw := base64.StdEncoding.EncodeToString, base64.StdEncoding.DecodeString
	unsalted := func(name string, newHash func() hash.Hash, text func([]byte) string, raw func(string) ([]byte, error)) scheme {
		return scheme{name: name, form: rawDigest, text: text, raw: raw, verify: verifyDigest(newHash, raw), generate: generateDigest(newHash, text, 0)}
	}
	salted := func(name string, newHash func() hash.Hash) scheme {
		return scheme{name: name, form: rawDigest, text: b64Text, raw: b64Raw, verify: verifyDigest(newHash, b64Raw), generate: generateDigest(newHash, b64Text, 4)}
	}
	readable := func(name string) scheme { return scheme{name: name, verify: verifyPlain, generate: generatePlain} }
	crypted := func(name, prefix string) scheme {
		return scheme{name: name, verify: verifyCrypt, generate: func(_, password string, rounds int) (string, error) {
			return generateCrypt(prefix, password, rounds)
		}}
	}
	return []scheme{
		readable("PLAIN"), readable("CLEAR"), readable("CLEARTEXT"),
		{name: "PLAIN-TRUNC", verify: verifyPlainTrunc, generate: generatePlain},
		crypted("CRYPT", "$2y$"), crypted("DES-CRYPT", ""), crypted("MD5-CRYPT", "$1$"), crypted("SHA256-CRYPT", "$5$"), crypted("SHA512-CRYPT", "$6$"), crypted("BLF-CRYPT", "$2y$"),
		{name: "MD5", verify: verifyMD5, generate: func(_, password string, rounds int) (string, error) {
			return generateCrypt("$1$", password, rounds)
		}},
		unsalted("PLAIN-MD4", md4.New, hexText, hexRaw), unsalted("PLAIN-MD5", md5.New, hexText, hexRaw), unsalted("LDAP-MD5", md5.New, b64Text, b64Raw),
		unsalted("SHA", sha1.New, b64Text, b64Raw), unsalted("SHA1", sha1.New, b64Text, b64Raw),
		unsalted("SHA256", sha256.New, b64Text, b64Raw), unsalted("SHA512", sha512.New, b64Text, b64Raw),
		salted("SMD5", md5.New), salted("SSHA", sha1.New), salted("SSHA256", sha256.New), salted("SSHA512", sha512.New),
		{name: "ARGON2I", verify: verifyArgon2, generate: generateArgon2("argon2i")},
		{name: "ARGON2ID", verify: verifyArgon2, generate: generateArgon2("argon2id")},
		{name: "PBKDF2", verify: verifyPBKDF2, generate: generatePBKDF2},
		{name: "CRAM-MD5", form: rawDigest, text: hexText, raw: hexRaw, verify: verifyCRAM, generate: generateCRAM},
		{name: "HMAC-MD5", form: rawDigest, text: hexText, raw: hexRaw, verify: verifyCRAM, generate: generateCRAM},
		{name: "DIGEST-MD5", form: rawDigest, text: hexText, raw: hexRaw, verify: verifyDigestMD5, generate: generateDigestMD5},
		{name: "OTP", verify: verifyOTP, generate: generateOTP},
		{name: "SCRAM-SHA-1", verify: verifySCRAM("SHA-1"), generate: generateSCRAM("SHA-1")},
		{name: "SCRAM-SHA-256", verify: verifySCRAM("SHA-256"), generate: generateSCRAM("SHA-256")},
	}
}

func randomBytes(n int) []byte {
	raw := make([]byte, n)
	// crypto/rand.Read never fails (it ends the process when the system has no randomness).
	_, _ = rand.Read(raw)
	return raw
}

func md5Sum(text string) [16]byte { return md5.Sum([]byte(text)) }

func hexMD5(text string) string {
	sum := md5Sum(text)
	return hex.EncodeToString(sum[:])
}

func verifyPlain(data, _, password string) (bool, error) { return equal(data, password), nil }

func generatePlain(_, password string, _ int) (string, error) { return password, nil }

// verifyPlainTrunc takes LENGTH-PASSWORD and compares as many octets as LENGTH says.
func verifyPlainTrunc(data, _, password string) (bool, error) {
	length, rest, found := strings.Cut(data, "-")
	n, err := strconv.ParseUint(length, 10, 16)
	if !found || err != nil {
		return false, errors.New("data is not LENGTH-PASSWORD")
	}
	return equal(rest, password[:min(len(password), int(n))]), nil
}

func verifyDigest(newHash func() hash.Hash, raw func(string) ([]byte, error)) func(data, user, password string) (bool, error) {
	return func(data, _, password string) (bool, error) {
		stored, err := raw(data)
		size := newHash().Size()
		if err != nil || len(stored) < size {
			return false, errors.New("data is too short or badly encoded")
		}
		h := newHash()
		h.Write([]byte(password))
		h.Write(stored[size:])
		return equal(string(h.Sum(nil)), string(stored[:size])), nil
	}
}

func generateDigest(newHash func() hash.Hash, text func([]byte) string, saltLength int) func(user, password string, rounds int) (string, error) {
	return func(_, password string, _ int) (string, error) {
		salt := randomBytes(saltLength)
		h := newHash()
		h.Write([]byte(password))
		h.Write(salt)
		return text(append(h.Sum(nil), salt...)), nil
	}
}

// verifyMD5 takes what old files call MD5: MD5-CRYPT, or the digest in hexadecimal or base64.
func verifyMD5(data, user, password string) (bool, error) {
	switch {
	case strings.HasPrefix(data, "$1$"):
		return verifyCrypt(data, user, password)
	case len(data) == 32:
		return verifyDigest(md5.New, hex.DecodeString)(data, user, password)
	}
	return verifyDigest(md5.New, base64.StdEncoding.DecodeString)(data, user, password)
}

func verifyArgon2(data, _, password string) (bool, error) {
	parts := strings.Split(data, "$")
	if len(parts) != 6 || parts[0] != "" {
		return false, errors.New("data is not $argon2id$v=19$m=,t=,p=$salt$hash")
	}
	var version, memory, passes, threads uint32
	if _, err := fmt.Sscanf(parts[2], "v=%d", &version); err != nil || version != argon2.Version {
		return false, fmt.Errorf("version %q is not v=%d", parts[2], argon2.Version)
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads); err != nil {
		return false, fmt.Errorf("cost %q: %w", parts[3], err)
	}
	if memory > 1<<21 || passes < 1 || passes > 1<<10 || threads < 1 || threads > 255 {
		return false, fmt.Errorf("cost %q is out of bounds", parts[3])
	}
	salt, err := base64.RawStdEncoding.DecodeString(parts[4])
	if err != nil {
		return false, fmt.Errorf("salt: %w", err)
	}
	want, err := base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(want) < 4 {
		return false, errors.New("hash is badly encoded")
	}
	var got []byte
	switch parts[1] {
	case "argon2id":
		got = argon2.IDKey([]byte(password), salt, passes, memory, uint8(threads), uint32(len(want)))
	case "argon2i":
		got = argon2.Key([]byte(password), salt, passes, memory, uint8(threads), uint32(len(want)))
	default:
		return false, fmt.Errorf("unknown kind %s", parts[1])
	}
	return equal(string(got), string(want)), nil
}

func generateArgon2(kind string) func(user, password string, rounds int) (string, error) {
	return func(_, password string, rounds int) (string, error) {
		const memory = 64 << 10
		passes := uint32(3)
		if rounds > 0 {
			passes = uint32(min(rounds, 1<<10))
		}
		salt := randomBytes(16)
		derive := argon2.IDKey
		if kind == "argon2i" {
			derive = argon2.Key
		}
		encode := base64.RawStdEncoding.EncodeToString
		return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=1$%s$%s", kind, argon2.Version, memory, passes, encode(salt),
			encode(derive([]byte(password), salt, passes, memory, 1, 32))), nil
	}
}

func verifyPBKDF2(data, _, password string) (bool, error) {
	parts := strings.Split(data, "$")
	if len(parts) != 5 || parts[0] != "" || parts[1] != "1" {
		return false, errors.New("data is not $1$salt$rounds$hash")
	}
	rounds, err := strconv.Atoi(parts[3])
	if err != nil || rounds < 1 || rounds > 10_000_000 {
		return false, fmt.Errorf("rounds %q are out of bounds", parts[3])
	}
	key, err := pbkdf2.Key(sha1.New, password, []byte(parts[2]), rounds, sha1.Size)
	if err != nil {
		return false, err
	}
	return equal(hex.EncodeToString(key), strings.ToLower(parts[4])), nil
}

func generatePBKDF2(_, password string, rounds int) (string, error) {
	if rounds <= 0 {
		rounds = pbkdf2Iterations
	}
	salt := cryptSalt(16)
	key, err := pbkdf2.Key(sha1.New, password, []byte(salt), rounds, sha1.Size)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("$1$%s$%d$%x", salt, rounds, key), nil
}

// cramContext is the state of MD5 after the outer and after the inner padded key of HMAC, as Dovecot keeps it: little-endian words in
// hexadecimal.
func cramContext(password string) string {
	key := []byte(password)
	if len(key) > md5.BlockSize {
		sum := md5.Sum(key)
		key = sum[:]
	}
	var context []byte
	for _, pad := range []byte{0x5c, 0x36} {
		block := bytes.Repeat([]byte{pad}, md5.BlockSize)
		for i, c := range key {
			block[i] ^= c
		}
		h := md5.New()
		h.Write(block)
		context = append(context, md5State(h)...)
	}
	return hex.EncodeToString(context)
}

const md5Magic = "md5\x01"

func md5State(h hash.Hash) []byte {
	marshaler, ok := h.(interface{ AppendBinary([]byte) ([]byte, error) })
	if !ok {
		return nil
	}
	state, err := marshaler.AppendBinary(nil)
	if err != nil || len(state) < len(md5Magic)+md5.Size {
		return nil
	}
	return swapWords(state[len(md5Magic) : len(md5Magic)+md5.Size])
}

func swapWords(state []byte) []byte {
	swapped := make([]byte, len(state))
	for i := 0; i+4 <= len(state); i += 4 {
		binary.LittleEndian.PutUint32(swapped[i:], binary.BigEndian.Uint32(state[i:]))
	}
	return swapped
}

func cramDigest(context string, challenge []byte) ([]byte, error) {
	states, err := hex.DecodeString(context)
	if err != nil || len(states) != 2*md5.Size {
		return nil, errors.New("data is not 64 hexadecimal digits")
	}
	resume := func(state, text []byte) ([]byte, error) {
		h := md5.New()
		marshaled := append([]byte(md5Magic), swapWords(state)...)
		marshaled = append(marshaled, make([]byte, md5.BlockSize)...)
		marshaled = binary.BigEndian.AppendUint64(marshaled, md5.BlockSize)
		unmarshaler, ok := h.(interface{ UnmarshalBinary([]byte) error })
		if !ok {
			return nil, errors.New("MD5 cannot be resumed")
		}
		if err := unmarshaler.UnmarshalBinary(marshaled); err != nil {
			return nil, err
		}
		h.Write(text)
		return h.Sum(nil), nil
	}
	inner, err := resume(states[md5.Size:], challenge)
	if err != nil {
		return nil, err
	}
	return resume(states[:md5.Size], inner)
}

func verifyCRAM(data, _, password string) (bool, error) {
	return equal(strings.ToLower(data), cramContext(password)), nil
}

func generateCRAM(_, password string, _ int) (string, error) { return cramContext(password), nil }

func splitRealm(user string) (name, realm string) {
	name, realm, _ = strings.Cut(user, "@")
	return name, realm
}

func verifyDigestMD5(data, user, password string) (bool, error) {
	name, realm := splitRealm(user)
	return equal(strings.ToLower(data), hexMD5(name+":"+realm+":"+password)), nil
}

func generateDigestMD5(user, password string, _ int) (string, error) {
	if user == "" {
		return "", errors.New("the user name is part of the hash: give it with -u")
	}
	name, realm := splitRealm(user)
	return hexMD5(name + ":" + realm + ":" + password), nil
}

// otpKey is RFC 2289's one-time password over SHA-1: hashed to 64 bits once and then count times more.
func otpKey(seed, password string, count int) string {
	text := []byte(strings.ToLower(seed) + password)
	var folded [8]byte
	for range count + 1 {
		sum := sha1.Sum(text)
		word := func(i int) uint32 { return binary.BigEndian.Uint32(sum[4*i:]) }
		binary.LittleEndian.PutUint32(folded[:], word(0)^word(2)^word(4))
		binary.LittleEndian.PutUint32(folded[4:], word(1)^word(3))
		text = folded[:]
	}
	return hex.EncodeToString(folded[:])
}

func verifyOTP(data, _, password string) (bool, error) {
	fields := strings.Fields(data)
	if len(fields) != 4 || fields[0] != "sha1" {
		return false, errors.New("data is not sha1 SEQUENCE SEED KEY")
	}
	sequence, err := strconv.Atoi(fields[1])
	if err != nil || sequence < 1 || sequence > 9999 {
		return false, fmt.Errorf("sequence %q is out of bounds", fields[1])
	}
	return equal(otpKey(fields[2], password, sequence), strings.ToLower(fields[3])), nil
}

func generateOTP(_, password string, _ int) (string, error) {
	seed := hex.EncodeToString(randomBytes(8))
	return fmt.Sprintf("sha1 %d %s %s", otpSequence, seed, otpKey(seed, password, otpSequence)), nil
}

func parseSCRAM(data string, size int) (sasl.SCRAMKeys, error) {
	var keys sasl.SCRAMKeys
	parts := strings.Split(data, ",")
	if len(parts) != 4 {
		return keys, errors.New("data is not ITERATIONS,SALT,STOREDKEY,SERVERKEY")
	}
	iterations, err := strconv.Atoi(parts[0])
	if err != nil || iterations < 1 {
		return keys, fmt.Errorf("iterations %q are out of bounds", parts[0])
	}
	keys.Iterations = iterations
	for i, target := range []*[]byte{&keys.Salt, &keys.StoredKey, &keys.ServerKey} {
		if *target, err = base64.StdEncoding.DecodeString(parts[i+1]); err != nil {
			return keys, err
		}
	}
	if len(keys.StoredKey) != size || len(keys.ServerKey) != size {
		return keys, errors.New("keys have the wrong length")
	}
	return keys, nil
}

func verifySCRAM(hashName string) func(data, user, password string) (bool, error) {
	return func(data, _, password string) (bool, error) {
		keys, err := parseSCRAM(data, sasl.SCRAMHash(hashName)().Size())
		if err != nil {
			return false, err
		}
		if keys.Iterations > 10_000_000 {
			return false, fmt.Errorf("%d iterations are out of bounds", keys.Iterations)
		}
		made, err := sasl.MakeSCRAMKeys(hashName, password, keys.Salt, keys.Iterations)
		if err != nil {
			return false, err
		}
		return equal(string(made.StoredKey), string(keys.StoredKey)), nil
	}
}

func generateSCRAM(hashName string) func(user, password string, rounds int) (string, error) {
	return func(_, password string, rounds int) (string, error) {
		if rounds <= 0 {
			rounds = scramIterations
		}
		keys, err := sasl.MakeSCRAMKeys(hashName, password, randomBytes(16), rounds)
		if err != nil {
			return "", err
		}
		encode := base64.StdEncoding.EncodeToString
		return fmt.Sprintf("%d,%s,%s,%s", keys.Iterations, encode(keys.Salt), encode(keys.StoredKey), encode(keys.ServerKey)), nil
	}
}

func bcryptHash(password string, rounds int) (string, error) {
	cost := 5
	if rounds > 0 {
		cost = max(bcrypt.MinCost, min(rounds, bcrypt.MaxCost))
	}
	hashed, err := bcrypt.GenerateFromPassword([]byte(password[:min(len(password), 72)]), cost)
	if err != nil {
		return "", err
	}
	return "$2y$" + string(hashed[4:]), nil
}
