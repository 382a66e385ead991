package canonical

import (
	"bytes"
	"encoding/json"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

const lowerHex = "0123456789abcdef"

// AppendString appends s as a JSON string. Bytes that are not UTF-8 become
// U+FFFD.
func AppendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	for _, r := range s {
		dst = appendRune(dst, r)
	}
	return append(dst, '"')
}

// appendRune escapes as QuoteJSONString does; a surrogate stands alone.
func appendRune(dst []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r >= ' ' && !utf16.IsSurrogate(r):
		return utf8.AppendRune(dst, r)
	case r == '\b':
		return append(dst, `\b`...)
	case r == '\f':
		return append(dst, `\f`...)
	case r == '\n':
		return append(dst, `\n`...)
	case r == '\r':
		return append(dst, `\r`...)
	case r == '\t':
		return append(dst, `\t`...)
	}
	return append(dst, '\\', 'u', lowerHex[r>>12&15], lowerHex[r>>8&15], lowerHex[r>>4&15], lowerHex[r&15])
}

// plain are the bytes that a string carries as they are.
var plain = func() (t [256]bool) {
	for c := range t {
		t[c] = c >= ' ' && c != '"' && c != '\\' && c < utf8.RuneSelf
	}
	return t
}()

func (p *parser) str() error {
	p.at++
	p.out = append(p.out, '"')
	for {
		start := p.at
		for p.at < len(p.src) && plain[p.src[p.at]] {
			p.at++
		}
		p.out = append(p.out, p.src[start:p.at]...)
		if p.at >= len(p.src) {
			return p.fail("ends within a string")
		}
		switch c := p.src[p.at]; {
		case c == '"':
			p.at++
			p.out = append(p.out, '"')
			return nil
		case c == '\\':
			if err := p.escape(); err != nil {
				return err
			}
		case c < ' ':
			return p.fail("has a control character within a string: escape it")
		default:
			r, size := utf8.DecodeRune(p.src[p.at:])
			if r == utf8.RuneError && size == 1 {
				return p.fail("is not valid UTF-8")
			}
			p.out = append(p.out, p.src[p.at:p.at+size]...)
			p.at += size
		}
	}
}

func (p *parser) escape() error {
	if p.at+1 >= len(p.src) {
		return p.fail("ends within a string")
	}
	short := bytes.IndexByte([]byte(`"\/bfnrt`), p.src[p.at+1])
	if short >= 0 {
		p.out = appendRune(p.out, rune("\"\\/\b\f\n\r\t"[short]))
		p.at += 2
		return nil
	}
	r, ok := p.unit(p.at)
	if !ok {
		return p.fail("has an escape that JSON does not know")
	}
	p.at += 6
	if utf16.IsSurrogate(r) {
		if low, ok := p.unit(p.at); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				p.at += 6
				r = pair
			}
		}
	}
	p.out = appendRune(p.out, r)
	return nil
}

// unit reads the UTF-16 code unit of a \uxxxx at an offset.
func (p *parser) unit(at int) (rune, bool) {
	if len(p.src)-at < 6 || p.src[at] != '\\' || p.src[at+1] != 'u' {
		return 0, false
	}
	r := rune(0)
	for _, c := range p.src[at+2 : at+6] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

var errLoneSurrogate = errors.New("has a lone surrogate in a key")

// unquote reads a canonical string.
func unquote(quoted []byte) (string, error) {
	inner := quoted[1 : len(quoted)-1]
	if bytes.IndexByte(inner, '\\') < 0 {
		return string(inner), nil
	}
	if bytes.Contains(inner, []byte(`\ud`)) {
		return "", errLoneSurrogate
	}
	var s string
	err := json.Unmarshal(quoted, &s)
	return s, err
}

// number writes a number as ECMAScript does, or as it stands, if no double
// holds its exact decimal.
func (p *parser) number() error {
	start := p.at
	whole, ok := p.scanNumber()
	if !ok {
		return p.fail("is not a JSON number")
	}
	token := p.src[start:p.at]
	if token[0] != '-' && len(token) <= 16 && (whole && len(token) <= 15 || plainFraction(token)) {
		p.out = append(p.out, token...) // 15 digits survive in a double
		return nil
	}
	f, err := strconv.ParseFloat(string(token), 64)
	var buf [32]byte
	short := strconv.AppendFloat(buf[:0], f, 'e', -1, 64)
	if err != nil || !sameDecimal(token, short) {
		p.out = append(p.out, token...)
		if len(p.inexact) < maxInexact {
			p.inexact = append(p.inexact, p.path())
		}
		return nil
	}
	p.out = appendNumber(p.out, f, short)
	return nil
}

// plainFraction says whether the number is written as ECMAScript would, such
// as 49.99: no exponent, no zero at the end, not below 0.1.
func plainFraction(token []byte) bool {
	point := bytes.IndexByte(token, '.')
	return point > 0 && token[len(token)-1] != '0' && (token[0] != '0' || token[point+1] != '0') && bytes.IndexByte(token, 'e') < 0 && bytes.IndexByte(token, 'E') < 0
}

// scanNumber passes over a number by JSON's grammar; whole means digits only.
func (p *parser) scanNumber() (whole, ok bool) {
	digits := func() bool {
		start := p.at
		for p.at < len(p.src) && p.src[p.at] >= '0' && p.src[p.at] <= '9' {
			p.at++
		}
		return p.at > start
	}
	peek := func() byte {
		if p.at < len(p.src) {
			return p.src[p.at]
		}
		return 0
	}
	if peek() == '-' {
		p.at++
	}
	if peek() == '0' {
		p.at++
	} else if !digits() {
		return false, false
	}
	whole = true
	if peek() == '.' {
		whole = false
		p.at++
		if !digits() {
			return false, false
		}
	}
	if c := peek(); c == 'e' || c == 'E' {
		whole = false
		p.at++
		if c := peek(); c == '+' || c == '-' {
			p.at++
		}
		if !digits() {
			return false, false
		}
	}
	return whole, true
}

// decimal is a number as 0.digits × 10^exp, without zeros at either end.
type decimal struct {
	digits []byte
	exp    int
}

// readDecimal reads a JSON number, the sign left aside. Exponents beyond what
// an int holds are clipped: no double comes near.
func readDecimal(token, buf []byte) decimal {
	d := decimal{digits: buf[:0]}
	i, point := 0, -1
	for ; i < len(token); i++ {
		switch c := token[i]; {
		case c == '-':
		case c == '.':
			point = len(d.digits)
		case c >= '0' && c <= '9':
			d.digits = append(d.digits, c)
		default:
			exp, err := strconv.Atoi(string(token[i+1:]))
			if err != nil && token[i+1] == '-' {
				exp = -1 << 40
			} else if err != nil {
				exp = 1 << 40
			}
			d.exp = exp
			i = len(token)
		}
	}
	if point < 0 {
		point = len(d.digits)
	}
	d.exp += point
	for len(d.digits) > 0 && d.digits[0] == '0' {
		d.digits = d.digits[1:]
		d.exp--
	}
	d.digits = bytes.TrimRight(d.digits, "0")
	if len(d.digits) == 0 {
		d.exp = 0
	}
	return d
}

func sameDecimal(a, b []byte) bool {
	var bufA, bufB [48]byte
	x, y := readDecimal(a, bufA[:]), readDecimal(b, bufB[:])
	return x.exp == y.exp && bytes.Equal(x.digits, y.digits)
}

// appendNumber is Number::toString (ECMA-262, 6.1.6.1.20) of a finite double
// whose shortest form in exponent notation is short.
func appendNumber(dst []byte, f float64, short []byte) []byte {
	if f == 0 {
		return append(dst, '0')
	}
	if f < 0 {
		dst = append(dst, '-')
	}
	var buf [32]byte
	d := readDecimal(short, buf[:])
	k, n := len(d.digits), d.exp
	switch {
	case k <= n && n <= 21:
		dst = append(dst, d.digits...)
		return append(dst, "00000000000000000000"[:n-k]...)
	case 0 < n && n <= 21:
		dst = append(append(dst, d.digits[:n]...), '.')
		return append(dst, d.digits[n:]...)
	case -6 < n && n <= 0:
		dst = append(append(dst, "0."...), "00000"[:-n]...)
		return append(dst, d.digits...)
	}
	dst = append(dst, d.digits[0])
	if k > 1 {
		dst = append(append(dst, '.'), d.digits[1:]...)
	}
	dst = append(dst, 'e')
	if n > 0 {
		dst = append(dst, '+')
	}
	return strconv.AppendInt(dst, int64(n-1), 10)
}
