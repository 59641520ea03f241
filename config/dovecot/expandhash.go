package dovecot

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
)

// modify applies one modifier letter. The hashes take the width as modulus and use it up.
func modify(letter byte, text string, v *variable) string {
	switch letter {
	case 'L':
		return lower(text)
	case 'U':
		return upper(text)
	case 'E':
		return escape(text)
	case 'X':
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return "0"
		}
		return strconv.FormatUint(n, 16)
	case 'R':
		b := []byte(text)
		slices.Reverse(b)
		return string(b)
	case 'T':
		return strings.TrimRight(text, " \t\r\n")
	case 'D':
		return "dc=" + strings.ReplaceAll(text, ".", ",dc=")
	case 'M':
		sum := md5.Sum([]byte(text))
		return hex.EncodeToString(sum[:])
	case 'H':
		return modulus(stringHash(text), v)
	case 'N':
		sum := md5.Sum([]byte(text))
		return modulus(binary.BigEndian.Uint32(sum[:]), v)
	}
	return text
}

func modulus(n uint32, v *variable) string {
	if v.width > 0 {
		n %= uint32(v.width)
		v.width = 0
	}
	return strconv.FormatUint(uint64(n), 16)
}

// stringHash is the hash of %H: the one of PJ Weinberger over the octets.
func stringHash(text string) uint32 {
	var h uint32
	for i := range len(text) {
		h = h<<4 + uint32(text[i])
		if g := h & 0xf0000000; g != 0 {
			h ^= g >> 24
			h ^= g
		}
	}
	return h
}

func lower(s string) string { return mapASCII(s, 'A', 'Z') }
func upper(s string) string { return mapASCII(s, 'a', 'z') }

// mapASCII changes the case of letters between first and last and leaves all other octets.
func mapASCII(s string, first, last byte) string {
	b := []byte(s)
	for i, c := range b {
		if c >= first && c <= last {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

// hashOf finds a hash by the name it has in %{NAME:...}.
func hashOf(name string) (sum func([]byte) []byte, size int, ok bool) {
	switch name {
	case "md5":
		return func(b []byte) []byte { s := md5.Sum(b); return s[:] }, md5.Size, true
	case "sha", "sha1":
		return func(b []byte) []byte { s := sha1.Sum(b); return s[:] }, sha1.Size, true
	case "sha256":
		return func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }, sha256.Size, true
	case "sha384":
		return func(b []byte) []byte { s := sha512.Sum384(b); return s[:] }, sha512.Size384, true
	case "sha512":
		return func(b []byte) []byte { s := sha512.Sum512(b); return s[:] }, sha512.Size, true
	case "sha3-256":
		return func(b []byte) []byte { s := sha3.Sum256(b); return s[:] }, 32, true
	case "sha3-512":
		return func(b []byte) []byte { s := sha3.Sum512(b); return s[:] }, 64, true
	}
	return nil, 0, false
}

// maxHashRounds bounds rounds=.
const maxHashRounds = 100_000

// hash does %{sha256;rounds=2,truncate=8,salt=x,format=hex:user}; kind has the options.
func (e *expander) hash(kind, name string) (string, error) {
	kind, list, _ := strings.Cut(kind, ";")
	sum, _, _ := hashOf(kind)
	text, ok := e.vars.get(name)
	if !ok {
		return "", fmt.Errorf("%w %%{%s:%s}", ErrUnknownVariable, kind, name)
	}
	o, err := parseHashOptions(list)
	if err != nil {
		return "", err
	}
	digest := sum([]byte(o.salt + text))
	for range o.rounds - 1 {
		digest = sum(digest)
	}
	if o.truncate > 0 && o.truncate < 8*len(digest) {
		n := new(big.Int).SetBytes(digest)
		n.Rsh(n, uint(8*len(digest)-o.truncate))
		digest = n.FillBytes(make([]byte, (o.truncate+7)/8))
	}
	switch o.format {
	case "hexuc":
		return strings.ToUpper(hex.EncodeToString(digest)), nil
	case "base64":
		return base64.StdEncoding.EncodeToString(digest), nil
	}
	return hex.EncodeToString(digest), nil
}

type hashOptions struct {
	rounds, truncate int
	salt, format     string
}

func parseHashOptions(list string) (hashOptions, error) {
	o := hashOptions{rounds: 1}
	for _, item := range strings.Split(list, ",") {
		name, text, _ := strings.Cut(item, "=")
		var err error
		switch name {
		case "":
		case "rounds":
			o.rounds, err = boundedNumber(text, 1, maxHashRounds)
		case "truncate":
			o.truncate, err = boundedNumber(text, 1, 512)
		case "salt":
			o.salt = text
		case "format":
			if o.format = text; !slices.Contains([]string{"hex", "hexuc", "base64"}, text) {
				err = fmt.Errorf("unknown format %q", text)
			}
		default:
			err = fmt.Errorf("unknown option %q", name)
		}
		if err != nil {
			return o, fmt.Errorf("hash: %w", err)
		}
	}
	return o, nil
}

func boundedNumber(text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < least || n > most {
		return 0, fmt.Errorf("%q is no number from %d to %d", text, least, most)
	}
	return n, nil
}

// filtered does the filters of 2.4: %{user | username | upper}.
func (e *expander) filtered(name, filters string) (string, error) {
	text, known := e.vars.get(name)
	for _, f := range strings.Split(filters, "|") {
		f, arg, _ := strings.Cut(strings.TrimSpace(f), "(")
		arg = strings.Trim(strings.TrimSuffix(arg, ")"), `'" `)
		switch f {
		case "default":
			if !known || text == "" {
				text, known = arg, true
			}
			continue
		case "username":
			text, _, _ = strings.Cut(text, "@")
		case "domain":
			_, text, _ = strings.Cut(text, "@")
		case "lower":
			text = lower(text)
		case "upper":
			text = upper(text)
		case "reverse":
			text = modify('R', text, &variable{})
		case "hex", "hexlify":
			text = hex.EncodeToString([]byte(text))
		case "base64":
			text = base64.StdEncoding.EncodeToString([]byte(text))
		default:
			sum, _, ok := hashOf(f)
			if !ok {
				return "", fmt.Errorf("unknown filter %q in %%{%s|%s}", f, name, filters)
			}
			text = string(sum([]byte(text)))
		}
	}
	if !known {
		return "", fmt.Errorf("%w %%{%s}", ErrUnknownVariable, name)
	}
	return text, nil
}
