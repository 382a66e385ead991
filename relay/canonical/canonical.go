// Package canonical writes JSON as ECMAScript does: the fixed point of
// JSON.stringify(JSON.parse(x)) (ECMA-262, 25.5), so that a receiver that
// hashes what it parsed and wrote again arrives at the bytes that were signed.
//
// Compact; strings escaped as QuoteJSONString does; keys that are array indices
// (0 to 2³²-2) first, ascending, the others in their order; numbers as
// Number::toString writes them. Numbers that no double holds keep their digits
// and are reported. Duplicate keys, invalid UTF-8, a byte order mark and
// nesting over 512 are errors. Pure and linear in time.
package canonical

import (
	"bytes"
	"slices"
	"strconv"
	"sync"
	"unicode/utf8"
)

// MaxDepth is the deepest nesting of arrays and objects.
const MaxDepth = 512

// maxInexact bounds the paths that are reported.
const maxInexact = 16

// Error says what in the input is wrong, and where.
type Error struct {
	Offset int    // in bytes
	Path   string // such as items[2].price; "" at the top
	Reason string
}

func (e *Error) Error() string {
	where := "at byte " + strconv.Itoa(e.Offset)
	if e.Path != "" {
		where = "in " + e.Path + ", " + where
	}
	return e.Reason + " (" + where + ")"
}

// Append appends the canonical form of src, one JSON value, to dst. inexact
// are the paths, at most 16, of numbers that a double cannot hold as their
// exact decimal. The error is an *Error.
func Append(dst, src []byte) (out []byte, inexact []string, err error) {
	p := parsers.Get().(*parser)
	defer parsers.Put(p)
	p.src, p.at, p.out, p.inexact = src, 0, dst, nil
	err = p.document()
	out, inexact = p.out, p.inexact
	p.src, p.out, p.inexact = nil, nil, nil // the caller's
	if err != nil {
		return dst, nil, err
	}
	return out, inexact, nil
}

var parsers = sync.Pool{New: func() any { return new(parser) }}

// frame is an array or object that is being read.
type frame struct {
	object   bool
	index    int // of the element
	key, end int // of the member's key in out, quotes included
}

// member is a member of an object in out.
type member struct {
	start, key, end int // of the whole; the key's end, quotes included
	index           int64
}

type parser struct {
	src     []byte
	at      int
	out     []byte
	inexact []string
	frames  []frame
	members []member // of all open objects, a stack
	frames0 [16]frame
	first   [32]member
}

func (p *parser) fail(reason string) error {
	return &Error{Offset: p.at, Path: p.path(), Reason: reason}
}

func (p *parser) document() error {
	p.frames, p.members = p.frames0[:0], p.first[:0]
	if bytes.HasPrefix(p.src, []byte("\xef\xbb\xbf")) {
		return p.fail("begins with a byte order mark: leave it out")
	}
	p.space()
	if err := p.value(); err != nil {
		return err
	}
	if p.space(); p.at < len(p.src) {
		return p.fail("has something after the JSON value")
	}
	return nil
}

func (p *parser) space() {
	for p.at < len(p.src) {
		switch p.src[p.at] {
		case ' ', '\n', '\r', '\t':
			p.at++
		default:
			return
		}
	}
}

func (p *parser) value() error {
	if p.at >= len(p.src) {
		return p.fail("ends where a JSON value should stand")
	}
	switch c := p.src[p.at]; {
	case c == '"':
		return p.str()
	case c == '{':
		return p.object()
	case c == '[':
		return p.array()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	case c == 't':
		return p.literal("true")
	case c == 'f':
		return p.literal("false")
	case c == 'n':
		return p.literal("null")
	}
	return p.fail("is not JSON")
}

func (p *parser) literal(word string) error {
	if len(p.src)-p.at < len(word) || string(p.src[p.at:p.at+len(word)]) != word {
		return p.fail("is not JSON")
	}
	p.at += len(word)
	p.out = append(p.out, word...)
	return nil
}

func (p *parser) enter(f frame) error {
	if len(p.frames) == MaxDepth {
		return p.fail("is nested deeper than 512")
	}
	p.frames = append(p.frames, f)
	return nil
}

func (p *parser) leave() { p.frames = p.frames[:len(p.frames)-1] }

// next takes what follows an element: a comma, or the closing bracket.
func (p *parser) next(closing byte) (more bool, err error) {
	p.space()
	if p.at >= len(p.src) {
		return false, p.fail("ends before it is closed with " + string(closing))
	}
	switch p.src[p.at] {
	case ',':
		p.at++
		p.out = append(p.out, ',')
		p.space()
		return true, nil
	case closing:
		p.at++
		p.out = append(p.out, closing)
		return false, nil
	}
	return false, p.fail("lacks a comma or " + string(closing))
}

func (p *parser) empty(closing byte) bool {
	p.space()
	if p.at < len(p.src) && p.src[p.at] == closing {
		p.at++
		p.out = append(p.out, closing)
		return true
	}
	return false
}

func (p *parser) array() error {
	if err := p.enter(frame{}); err != nil {
		return err
	}
	p.at++
	p.out = append(p.out, '[')
	for more := !p.empty(']'); more; {
		if err := p.value(); err != nil {
			return err
		}
		var err error
		if more, err = p.next(']'); err != nil {
			return err
		}
		p.frames[len(p.frames)-1].index++
	}
	p.leave()
	return nil
}

func (p *parser) object() error {
	if err := p.enter(frame{object: true}); err != nil {
		return err
	}
	p.at++
	p.out = append(p.out, '{')
	base := len(p.members)
	reorder := false
	for more := !p.empty('}'); more; {
		m, err := p.member(base)
		if err != nil {
			return err
		}
		if m.index >= 0 && len(p.members) > base {
			last := p.members[len(p.members)-1].index
			reorder = reorder || last < 0 || last > m.index
		}
		p.members = append(p.members, m)
		if more, err = p.next('}'); err != nil {
			return err
		}
	}
	members := p.members[base:]
	if len(members) > linear {
		if err := p.unique(members); err != nil {
			return err
		}
	}
	if reorder {
		p.reorder(members)
	}
	p.members = p.members[:base]
	p.leave()
	return nil
}

// linear is up to how many members duplicates are looked for one by one.
const linear = 16

func (p *parser) member(base int) (m member, err error) {
	if p.at >= len(p.src) || p.src[p.at] != '"' {
		return m, p.fail("lacks a key in double quotes")
	}
	at := p.at
	m.start = len(p.out)
	if err := p.str(); err != nil {
		return m, err
	}
	m.key = len(p.out)
	f := &p.frames[len(p.frames)-1]
	f.key, f.end = m.start, m.key
	key := p.out[m.start:m.key]
	if open := p.members[base:]; len(open) < linear {
		for _, o := range open {
			if o.key-o.start == len(key) && bytes.Equal(p.out[o.start:o.key], key) {
				p.at = at
				return m, p.fail("is given twice")
			}
		}
	}
	m.index = arrayIndex(key[1 : len(key)-1])
	if p.space(); p.at >= len(p.src) || p.src[p.at] != ':' {
		return m, p.fail("lacks a colon after the key")
	}
	p.at++
	p.out = append(p.out, ':')
	p.space()
	err = p.value()
	m.end = len(p.out)
	return m, err
}

// unique finds duplicates among many members by sorting their keys.
func (p *parser) unique(members []member) error {
	keys := make([][]byte, len(members))
	for i, m := range members {
		keys[i] = p.out[m.start:m.key]
	}
	slices.SortFunc(keys, bytes.Compare)
	for i := 1; i < len(keys); i++ {
		if bytes.Equal(keys[i-1], keys[i]) {
			p.leave()
			return p.fail("has the key " + string(keys[i]) + " twice")
		}
	}
	return nil
}

// arrayIndex is the key's value if it is an array index, or -1.
func arrayIndex(key []byte) int64 {
	if len(key) == 0 || len(key) > 10 || key[0] == '0' && len(key) > 1 {
		return -1
	}
	n := int64(0)
	for _, c := range key {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	if n > 1<<32-2 {
		return -1
	}
	return n
}

// reorder rewrites an object's members with the array indices first. The
// closing brace stands already.
func (p *parser) reorder(members []member) {
	start := members[0].start
	old := append([]byte(nil), p.out[start:]...)
	slices.SortStableFunc(members, func(a, b member) int {
		switch {
		case a.index >= 0 && b.index >= 0:
			return int(min(max(a.index-b.index, -1), 1))
		case a.index >= 0:
			return -1
		case b.index >= 0:
			return 1
		}
		return 0
	})
	p.out = p.out[:start]
	for i, m := range members {
		if i > 0 {
			p.out = append(p.out, ',')
		}
		p.out = append(p.out, old[m.start-start:m.end-start]...)
	}
	p.out = append(p.out, '}')
}

// path says where the parser is.
func (p *parser) path() string {
	var b []byte
	for _, f := range p.frames {
		switch {
		case !f.object:
			b = append(strconv.AppendInt(append(b, '['), int64(f.index), 10), ']')
		case f.end > f.key:
			if len(b) > 0 {
				b = append(b, '.')
			}
			b = append(b, p.out[f.key+1:f.end-1]...)
		}
	}
	if len(b) > 200 { // an error's text, not a dump
		return string(bytes.ToValidUTF8(b[:200], nil)) + "…"
	}
	return string(b)
}

// Members calls fn for each member of the object src, in order, with the key
// unescaped and the value as it stands. Keys given twice are an error; a value
// is only skipped, so that its own syntax is checked by who reads it. fn's
// error ends the walk and is returned as it is.
func Members(src []byte, fn func(key string, raw []byte) error) error {
	var seen [linear]string
	n := 0
	var more map[string]bool
	return walk(src, '{', '}', func(p *parser, _ int) error {
		if p.at >= len(p.src) || p.src[p.at] != '"' {
			return p.fail("lacks a key in double quotes")
		}
		at := p.at
		p.out = p.out[:0]
		if err := p.str(); err != nil {
			return err
		}
		key, err := unquote(p.out)
		if err != nil {
			return p.fail(err.Error())
		}
		if more[key] || slices.Contains(seen[:min(n, linear)], key) {
			return &Error{Offset: at, Path: key, Reason: "is given twice"}
		}
		if n < linear {
			seen[n] = key
		} else {
			if more == nil {
				more = map[string]bool{}
			}
			more[key] = true
		}
		n++
		if p.space(); p.at >= len(p.src) || p.src[p.at] != ':' {
			return p.fail("lacks a colon after the key")
		}
		p.at++
		p.space()
		start := p.at
		if err := p.skip(); err != nil {
			return under(key, err)
		}
		return fn(key, p.src[start:p.at])
	})
}

// under places a fault of a member's value that could not be skipped.
func under(key string, err error) error {
	e, ok := err.(*Error)
	if !ok {
		return err
	}
	return &Error{Offset: e.Offset, Path: key, Reason: e.Reason}
}

// Elements calls fn for each element of the array src, as Members does.
func Elements(src []byte, fn func(raw []byte) error) error {
	return walk(src, '[', ']', func(p *parser, _ int) error {
		start := p.at
		if err := p.skip(); err != nil {
			return err
		}
		return fn(p.src[start:p.at])
	})
}

func walk(src []byte, opening, closing byte, each func(p *parser, i int) error) error {
	p := parser{src: src}
	p.frames, p.members = p.frames0[:0], p.first[:0]
	if bytes.HasPrefix(src, []byte("\xef\xbb\xbf")) {
		return p.fail("begins with a byte order mark: leave it out")
	}
	if !utf8.Valid(src) {
		for r, n := utf8.DecodeRune(src); r != utf8.RuneError || n > 1; r, n = utf8.DecodeRune(src[p.at:]) {
			p.at += n
		}
		return p.fail("is not valid UTF-8")
	}
	if p.space(); p.at >= len(src) || src[p.at] != opening {
		return p.fail("does not begin with " + string(opening))
	}
	p.at++
	for i, more := 0, !p.empty(closing); more; i++ {
		if err := each(&p, i); err != nil {
			return err
		}
		var err error
		if more, err = p.next(closing); err != nil {
			return err
		}
	}
	if p.space(); p.at < len(p.src) {
		return p.fail("has something after the JSON value")
	}
	return nil
}

// skip passes over a value by its brackets and quotes alone.
func (p *parser) skip() error {
	start, depth := p.at, 0
	for ; p.at < len(p.src); p.at++ {
		switch c := p.src[p.at]; c {
		case '"':
			if err := p.skipString(); err != nil {
				return err
			}
			if depth == 0 {
				p.at++
				return nil
			}
		case '{', '[':
			if depth++; depth > MaxDepth {
				return p.fail("is nested deeper than 512")
			}
		case '}', ']':
			if depth == 0 {
				return p.skipped(start)
			}
			if depth--; depth == 0 {
				p.at++
				return nil
			}
		case ',', ' ', '\n', '\r', '\t':
			if depth == 0 {
				return p.skipped(start)
			}
		}
	}
	if depth > 0 {
		return p.fail("ends before it is closed")
	}
	return p.skipped(start)
}

func (p *parser) skipped(start int) error {
	if p.at == start {
		return p.fail("lacks a value")
	}
	return nil
}

// skipString leaves at on the closing quote.
func (p *parser) skipString() error {
	for p.at++; p.at < len(p.src); p.at++ {
		switch p.src[p.at] {
		case '\\':
			p.at++
		case '"':
			return nil
		}
	}
	return p.fail("ends within a string")
}
