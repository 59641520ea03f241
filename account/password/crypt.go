package password

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

const cryptAlphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func cryptSalt(n int) string {
	salt := randomBytes(n)
	for i, c := range salt {
		salt[i] = cryptAlphabet[c&63]
	}
	return string(salt)
}

// verifyCrypt checks what crypt(3) makes, whichever method its prefix names.
func verifyCrypt(data, _, password string) (bool, error) {
	if len(data) > 512 {
		return false, errors.New("data is longer than 512 octets")
	}
	switch {
	case strings.HasPrefix(data, "$1$"):
		return equal(md5Crypt(password, data), data), nil
	case strings.HasPrefix(data, "$5$"), strings.HasPrefix(data, "$6$"):
		made, err := shaCrypt(password, data)
		return err == nil && equal(made, data), err
	case strings.HasPrefix(data, "$2a$"), strings.HasPrefix(data, "$2b$"), strings.HasPrefix(data, "$2y$"):
		err := bcrypt.CompareHashAndPassword([]byte(data), []byte(password[:min(len(password), 72)]))
		if errors.Is(err, bcrypt.ErrMismatchedHashAndPassword) {
			return false, nil
		}
		return err == nil, err
	case strings.HasPrefix(data, "$y$"):
		made, err := yescrypt(password, data)
		return err == nil && equal(made, data), err
	case strings.HasPrefix(data, "$7$"):
		made, err := scryptCrypt(password, data)
		return err == nil && equal(made, data), err
	case len(data) == 13 && data[0] != '$' && data[0] != '*' && data[0] != '!':
		made, err := desCrypt(password, data)
		return err == nil && equal(made, data), err
	case data == "", strings.HasPrefix(data, "!"), strings.HasPrefix(data, "*"):
		// A locked account: no password matches.
		return false, nil
	}
	return false, fmt.Errorf("method of %q is not known", data[:min(len(data), 3)])
}

func generateCrypt(prefix, password string, rounds int) (string, error) {
	switch prefix {
	case "$1$":
		return md5Crypt(password, "$1$"+cryptSalt(8)), nil
	case "":
		return desCrypt(password, cryptSalt(2))
	case "$2y$":
		return bcryptHash(password, rounds)
	}
	setting := prefix
	if rounds > 0 {
		setting += "rounds=" + strconv.Itoa(max(1000, min(rounds, 999_999_999))) + "$"
	}
	return shaCrypt(password, setting+cryptSalt(16))
}

// encode24 appends n characters for three octets, low six bits first.
func encode24(dst []byte, a, b, c byte, n int) []byte {
	value := uint(a)<<16 | uint(b)<<8 | uint(c)
	for range n {
		dst = append(dst, cryptAlphabet[value&63])
		value >>= 6
	}
	return dst
}

// md5Crypt is the crypt(3) method $1$; setting holds at least the salt.
func md5Crypt(password, setting string) string {
	salt, _, _ := strings.Cut(strings.TrimPrefix(setting, "$1$"), "$")
	salt = salt[:min(len(salt), 8)]
	inner := md5.Sum([]byte(password + salt + password))
	h := md5.New()
	h.Write([]byte(password + "$1$" + salt))
	for n := len(password); n > 0; n -= md5.Size {
		h.Write(inner[:min(n, md5.Size)])
	}
	for n := len(password); n > 0; n >>= 1 {
		if n&1 == 1 {
			h.Write([]byte{0})
		} else {
			h.Write([]byte{password[0]})
		}
	}
	sum := h.Sum(nil)
	for i := range 1000 {
		h.Reset()
		writeAlternating(h, i, []byte(password), sum)
		if i%3 != 0 {
			h.Write([]byte(salt))
		}
		if i%7 != 0 {
			h.Write([]byte(password))
		}
		writeAlternating(h, i+1, []byte(password), sum)
		sum = h.Sum(sum[:0])
	}
	out := []byte("$1$" + salt + "$")
	for _, i := range [][3]int{{0, 6, 12}, {1, 7, 13}, {2, 8, 14}, {3, 9, 15}, {4, 10, 5}} {
		out = encode24(out, sum[i[0]], sum[i[1]], sum[i[2]], 4)
	}
	return string(encode24(out, 0, 0, sum[11], 2))
}

// writeAlternating writes odd in odd rounds and even in even rounds.
func writeAlternating(h hash.Hash, round int, odd, even []byte) {
	if round&1 == 1 {
		h.Write(odd)
	} else {
		h.Write(even)
	}
}

// shaCrypt is the crypt(3) methods $5$ and $6$ (Drepper's "Unix crypt using SHA-256 and SHA-512"); setting holds the prefix, perhaps
// rounds=N$, and at least the salt.
func shaCrypt(password, setting string) (string, error) {
	prefix, newHash := setting[:3], sha256.New
	if prefix == "$6$" {
		newHash = sha512.New
	}
	rest, rounds, explicit := setting[3:], 5000, ""
	if text, found := strings.CutPrefix(rest, "rounds="); found {
		number, after, ok := strings.Cut(text, "$")
		n, err := strconv.Atoi(number)
		if !ok || err != nil {
			return "", fmt.Errorf("rounds %q", number)
		}
		rounds, rest = max(1000, min(n, 999_999_999)), after
		explicit = "rounds=" + strconv.Itoa(rounds) + "$"
	}
	if rounds > 20_000_000 {
		return "", fmt.Errorf("%d rounds would take too long", rounds)
	}
	salt, _, _ := strings.Cut(rest, "$")
	salt = salt[:min(len(salt), 16)]
	sum := shaCryptSum(newHash, []byte(password), []byte(salt), rounds)
	return prefix + explicit + salt + "$" + encodeSHACrypt(sum), nil
}

func shaCryptSum(newHash func() hash.Hash, password, salt []byte, rounds int) []byte {
	h := newHash()
	repeat := func(block []byte, n int) {
		for ; n > 0; n -= len(block) {
			h.Write(block[:min(n, len(block))])
		}
	}
	h.Write(password)
	h.Write(salt)
	h.Write(password)
	alternate := h.Sum(nil)
	h.Reset()
	h.Write(password)
	h.Write(salt)
	repeat(alternate, len(password))
	for n := len(password); n > 0; n >>= 1 {
		writeAlternating(h, n, alternate, password)
	}
	sum := h.Sum(nil)

	spread := func(write func(), n int) []byte {
		h.Reset()
		write()
		digest := h.Sum(nil)
		out := make([]byte, 0, n+len(digest))
		for len(out) < n {
			out = append(out, digest...)
		}
		return out[:n]
	}
	p := spread(func() {
		for range password {
			h.Write(password)
		}
	}, len(password))
	s := spread(func() {
		for range 16 + int(sum[0]) {
			h.Write(salt)
		}
	}, len(salt))
	for i := range rounds {
		h.Reset()
		writeAlternating(h, i, p, sum)
		if i%3 != 0 {
			h.Write(s)
		}
		if i%7 != 0 {
			h.Write(p)
		}
		writeAlternating(h, i+1, p, sum)
		sum = h.Sum(sum[:0])
	}
	return sum
}

// encodeSHACrypt orders the octets as the method prescribes: thirds of the digest, rotating which comes first.
func encodeSHACrypt(sum []byte) string {
	var out []byte
	if len(sum) == sha256.Size {
		for i := range 10 {
			a, b, c := i, i+10, i+20
			switch i % 3 {
			case 1:
				a, b, c = c, a, b
			case 2:
				a, b, c = b, c, a
			}
			out = encode24(out, sum[a], sum[b], sum[c], 4)
		}
		return string(encode24(out, 0, sum[31], sum[30], 3))
	}
	for i := range 21 {
		a, b, c := i, i+21, i+42
		switch i % 3 {
		case 1:
			a, b, c = b, c, a
		case 2:
			a, b, c = c, a, b
		}
		out = encode24(out, sum[a], sum[b], sum[c], 4)
	}
	return string(encode24(out, 0, 0, sum[63], 2))
}
