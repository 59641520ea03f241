package password

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"strings"

	"golang.org/x/crypto/scrypt"
)

// maxCryptMemory is the most memory in octets that one check of $y$ or $7$ may take; Debian's default takes 16 MiB.
const maxCryptMemory = 256 << 20

// maxCryptWork bounds N*r*(t+1), which the time of $y$ and $7$ grows with; Debian's default is 1<<17.
const maxCryptWork = 1 << 23

var errSetting = errors.New("setting is malformed")

// flavorRW is the only yescrypt mode in use: read-write, 6 rounds, gather 4, simple 2, S-boxes of 12 KiB.
const flavorRW = 0xb6

// yescryptParams is what a $y$ setting says.
type yescryptParams struct{ n, r, p, t uint64 }

// yescrypt is the crypt(3) method $y$ ("yescrypt - scalable KDF and password hashing scheme", Alexander Peslyak, 2014-2018), which
// Debian's shadow files use.
func yescrypt(password, setting string) (string, error) {
	rest, ok := strings.CutPrefix(setting, "$y$")
	if !ok {
		return "", errSetting
	}
	params, rest, err := parseYescrypt(rest)
	if err != nil {
		return "", err
	}
	text, _, _ := strings.Cut(rest, "$")
	salt, err := decode64(text)
	if err != nil || len(salt) > 64 {
		return "", fmt.Errorf("%w: salt", errSetting)
	}
	secret := []byte(password)
	if params.n/params.p >= 0x100 && params.n/params.p*params.r >= 0x20000 {
		small := params
		small.n, small.t = params.n>>6, 0
		if secret, err = yescryptBody(secret, salt, small, true); err != nil {
			return "", err
		}
	}
	sum, err := yescryptBody(secret, salt, params, false)
	if err != nil {
		return "", err
	}
	return setting[:len(setting)-len(rest)] + text + "$" + encode64(sum), nil
}

// parseYescrypt reads the parameters up to the $ before the salt.
func parseYescrypt(text string) (p yescryptParams, rest string, err error) {
	number := func(least uint64) uint64 {
		var value uint64
		if err == nil {
			value, text, err = decodeNumber(text, least)
		}
		return value
	}
	flavor, log2, r := number(0), number(1), number(1)
	p = yescryptParams{r: r, p: 1}
	if err == nil && text != "" && text[0] != '$' {
		have := number(1)
		if have&1 != 0 {
			p.p = number(2)
		}
		if have&2 != 0 {
			p.t = number(1)
		}
		if have&^3 != 0 {
			return p, "", fmt.Errorf("%w: upgraded hashes and ROMs are not supported", errSetting)
		}
	}
	if err != nil || text == "" || text[0] != '$' {
		return p, "", errSetting
	}
	if flavor < 2 || 2+(flavor-2)<<2 != flavorRW {
		return p, "", fmt.Errorf("%w: flavor %d is not supported", errSetting, flavor)
	}
	if err := checkCost(log2, p.r, p.p, p.t); err != nil {
		return p, "", err
	}
	p.n = 1 << log2
	if p.n/p.p <= 1 {
		return p, "", fmt.Errorf("%w: more lanes than blocks", errSetting)
	}
	return p, text[1:], nil
}

func checkCost(log2, r, p, t uint64) error {
	if log2 < 1 || log2 > 24 || r < 1 || r > 1<<12 || p < 1 || p > 64 || t > 64 || r<<log2*128+r*p*128 > maxCryptMemory || r<<log2*(t+1)*p > maxCryptWork {
		return fmt.Errorf("%w: cost is out of bounds", errSetting)
	}
	return nil
}

// scryptCrypt is the crypt(3) method $7$: scrypt (RFC 7914) with a setting of log2(N) in one character, r and p in five each.
func scryptCrypt(password, setting string) (string, error) {
	rest, ok := strings.CutPrefix(setting, "$7$")
	if !ok || len(rest) < 11 {
		return "", errSetting
	}
	var fields [3]uint64
	for i, span := range [][2]int{{0, 1}, {1, 6}, {6, 11}} {
		for shift, c := range []byte(rest[span[0]:span[1]]) {
			value := strings.IndexByte(cryptAlphabet, c)
			if value < 0 {
				return "", errSetting
			}
			fields[i] |= uint64(value) << (6 * shift)
		}
	}
	if err := checkCost(fields[0], fields[1], fields[2], 0); err != nil {
		return "", err
	}
	salt := rest[11:]
	if end := strings.LastIndexByte(salt, '$'); end >= 0 {
		salt = salt[:end]
	}
	sum, err := scrypt.Key([]byte(password), []byte(salt), 1<<fields[0], int(fields[1]), int(fields[2]), sha256.Size)
	if err != nil {
		return "", err
	}
	return "$7$" + rest[:11] + salt + "$" + encode64(sum), nil
}

// decodeNumber reads a number of variable length: the first character's range tells how many follow.
func decodeNumber(text string, least uint64) (value uint64, rest string, err error) {
	if text == "" {
		return 0, "", errSetting
	}
	first := strings.IndexByte(cryptAlphabet, text[0])
	if first < 0 {
		return 0, "", errSetting
	}
	value, text = least, text[1:]
	start, end, more, shift := 0, 47, 0, 0
	for first > end {
		value += uint64(end+1-start) << shift
		start = end + 1
		end = start + (62-end)/2
		more++
		shift += 6
	}
	value += uint64(first-start) << shift
	if len(text) < more {
		return 0, "", errSetting
	}
	for i := range more {
		digit := strings.IndexByte(cryptAlphabet, text[i])
		if digit < 0 {
			return 0, "", errSetting
		}
		shift -= 6
		value += uint64(digit) << shift
	}
	return value, text[more:], nil
}

// encode64 writes three octets as four characters, the low six bits first.
func encode64(raw []byte) string {
	var out []byte
	for ; len(raw) >= 3; raw = raw[3:] {
		out = encode24(out, raw[2], raw[1], raw[0], 4)
	}
	switch len(raw) {
	case 1:
		out = encode24(out, 0, 0, raw[0], 2)
	case 2:
		out = encode24(out, 0, raw[1], raw[0], 3)
	}
	return string(out)
}

func decode64(text string) ([]byte, error) {
	var out []byte
	for text != "" {
		n := min(len(text), 4)
		var value uint32
		for i := range n {
			digit := strings.IndexByte(cryptAlphabet, text[i])
			if digit < 0 {
				return nil, errSetting
			}
			value |= uint32(digit) << (6 * i)
		}
		octets := n * 6 / 8
		if octets == 0 || value>>(8*octets) != 0 {
			return nil, errSetting
		}
		for range octets {
			out = append(out, byte(value))
			value >>= 8
		}
		text = text[n:]
	}
	return out, nil
}

func hmacSHA256(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// yescryptBody is the derivation itself; prehash marks the small run that goes before an expensive one.
func yescryptBody(secret, salt []byte, params yescryptParams, prehash bool) ([]byte, error) {
	label := "yescrypt"
	if prehash {
		label = "yescrypt-prehash"
	}
	secret = hmacSHA256([]byte(label), secret)
	raw, err := pbkdf2.Key(sha256.New, string(secret), salt, 1, int(params.p*params.r)*128)
	if err != nil {
		return nil, err
	}
	secret = append([]byte(nil), raw[:sha256.Size]...)
	words := make([]uint32, len(raw)/4)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(raw[4*i:])
	}
	secret = yescryptMix(words, params, secret)
	for i, word := range words {
		binary.LittleEndian.PutUint32(raw[4*i:], word)
	}
	key, err := pbkdf2.Key(sha256.New, string(secret), raw, 1, sha256.Size)
	if err != nil || prehash {
		return key, err
	}
	stored := sha256.Sum256(hmacSHA256(key, []byte("Client Key")))
	return stored[:], nil
}

const (
	boxWidth = 8
	boxWords = 2 * 2 << boxWidth
	// boxBlocks is the three S-boxes in blocks of 128 octets.
	boxBlocks = 3 * boxWords / 32
	boxMask   = (1<<boxWidth - 1) * 16
	pwxRounds = 6
)

// boxes are the S-boxes of one lane; they change with use.
type boxes struct {
	s0, s1, s2 []uint32
	written    int
}

// yescryptMix is SMix over p lanes; blocks hold 32*r words a lane. It returns the secret that the last derivation takes.
func yescryptMix(blocks []uint32, params yescryptParams, secret []byte) []byte {
	n, r, p := params.n, int(params.r), params.p
	size := 32 * r
	each := n / p
	all := each
	switch {
	case params.t == 0:
		all = (all + 2) / 3
	case params.t == 1:
		all = (2*all + 2) / 3
	default:
		all *= params.t - 1
	}
	writing := all / p
	each &^= 1
	all = (all + 1) &^ 1
	writing = (writing + 1) &^ 1
	table := make([]uint32, n*uint64(size))
	work := make([]uint32, size)
	lanes := make([]*boxes, p)
	for i := range p {
		lane := blocks[int(i)*size : int(i+1)*size]
		own := each
		if i == p-1 {
			own = n - each*(p-1)
		}
		part := table[i*each*uint64(size):]
		box := make([]uint32, 3*boxWords)
		fill(lane[:32], boxBlocks, box, work[:32], nil)
		lanes[i] = &boxes{s2: box[:boxWords], s1: box[boxWords : 2*boxWords], s0: box[2*boxWords:]}
		if i == 0 {
			key := make([]byte, 0, 64)
			for _, word := range lane[size-16:] {
				key = binary.LittleEndian.AppendUint32(key, word)
			}
			secret = hmacSHA256(key, secret)
		}
		fill(lane, own, part, work, lanes[i])
		visit(lane, floor2(own), writing, true, part, work, lanes[i])
	}
	for i := range p {
		visit(blocks[int(i)*size:int(i+1)*size], n, all-writing, false, table, work, lanes[i])
	}
	return secret
}

func floor2(n uint64) uint64 { return 1 << (bits.Len64(n) - 1) }

// shuffle puts the words of each 64 octets into the order in which the rounds work on them.
func shuffle(dst, src []uint32) {
	for i := range src {
		dst[i] = src[i&^15+i%16*5%16]
	}
}

func unshuffle(dst, src []uint32) {
	for i := range src {
		dst[i&^15+i%16*5%16] = src[i]
	}
}

// integerify takes the first 64 bits of the last block.
func integerify(x []uint32) uint64 {
	last := x[len(x)-16:]
	return uint64(last[13])<<32 | uint64(last[0])
}

func xorWords(dst, src []uint32) {
	for i := range dst {
		dst[i] ^= src[i]
	}
}

// fill is SMix1. Without boxes it is scrypt's, with Salsa20/8.
func fill(block []uint32, n uint64, table, x []uint32, b *boxes) {
	size := uint64(len(block))
	shuffle(x, block)
	var spare [32]uint32
	for i := range n {
		copy(table[i*size:(i+1)*size], x)
		if b == nil {
			salsaMix(x, &spare)
			continue
		}
		if i > 1 {
			span := floor2(i)
			j := integerify(x)&(span-1) + (i - span)
			xorWords(x, table[j*size:(j+1)*size])
		}
		b.mix(x)
	}
	unshuffle(block, x)
}

// visit is SMix2.
func visit(block []uint32, n, loops uint64, write bool, table, x []uint32, b *boxes) {
	size := uint64(len(block))
	shuffle(x, block)
	for range loops {
		j := integerify(x) & (n - 1)
		row := table[j*size : (j+1)*size]
		xorWords(x, row)
		if write {
			copy(row, x)
		}
		b.mix(x)
	}
	unshuffle(block, x)
}

// salsaMix is scrypt's BlockMix for r=1.
func salsaMix(x []uint32, spare *[32]uint32) {
	copy(spare[:], x)
	xorWords(spare[:16], spare[16:])
	salsa(spare[:16], 8)
	xorWords(spare[16:], spare[:16])
	salsa(spare[16:], 8)
	copy(x, spare[:])
}

// mix is BlockMix with the parallel wide transformation.
func (b *boxes) mix(x []uint32) {
	last := x[len(x)-16:]
	var state [16]uint32
	copy(state[:], last)
	for i := 0; i < len(x); i += 16 {
		xorWords(state[:], x[i:i+16])
		b.transform(&state)
		copy(x[i:i+16], state[:])
	}
	salsa(last, 2)
}

// transform is pwxform.
func (b *boxes) transform(x *[16]uint32) {
	s0, s1, s2, w := b.s0, b.s1, b.s2, b.written
	for round := range pwxRounds {
		for lane := 0; lane < 16; lane += 4 {
			at0, at1 := x[lane]&boxMask/4, x[lane+1]&boxMask/4
			for k := range uint32(2) {
				low, high := x[lane+int(2*k)], x[lane+int(2*k)+1]
				a := uint64(s0[at0+2*k+1])<<32 | uint64(s0[at0+2*k])
				c := uint64(s1[at1+2*k+1])<<32 | uint64(s1[at1+2*k])
				v := (uint64(high)*uint64(low) + a) ^ c
				x[lane+int(2*k)], x[lane+int(2*k)+1] = uint32(v), uint32(v>>32)
				if round != 0 && round != pwxRounds-1 {
					s2[2*w], s2[2*w+1] = uint32(v), uint32(v>>32)
					w++
				}
			}
		}
	}
	b.s0, b.s1, b.s2 = s2, s0, s1
	b.written = w & (2<<boxWidth - 1)
}

// salsa is Salsa20 with so many rounds over a block in shuffled order.
func salsa(block []uint32, rounds int) {
	var x [16]uint32
	unshuffle(x[:], block)
	quarter := func(a, b, c, d int) {
		x[b] ^= bits.RotateLeft32(x[a]+x[d], 7)
		x[c] ^= bits.RotateLeft32(x[b]+x[a], 9)
		x[d] ^= bits.RotateLeft32(x[c]+x[b], 13)
		x[a] ^= bits.RotateLeft32(x[d]+x[c], 18)
	}
	for ; rounds > 0; rounds -= 2 {
		quarter(0, 4, 8, 12)
		quarter(5, 9, 13, 1)
		quarter(10, 14, 2, 6)
		quarter(15, 3, 7, 11)
		quarter(0, 1, 2, 3)
		quarter(5, 6, 7, 4)
		quarter(10, 11, 8, 9)
		quarter(15, 12, 13, 14)
	}
	for i := range block {
		block[i] += x[i%16*5%16]
	}
}
