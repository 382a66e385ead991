package state

import (
	"encoding/binary"
	"errors"
)

var errCorrupt = errors.New("decode: value is cut short or malformed")

// The scalar encodings of every format here: unsigned varints, zig-zag
// varints for what may be negative, strings and byte strings with a varint
// length before them.

func putString(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func putBytes(b, s []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// decoder reads scalars; after the first fault every read returns zero and
// err is set, so that callers check once.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail() {
	d.b, d.err = nil, errCorrupt
}

func (d *decoder) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) uint32() uint32 {
	v := d.uint()
	if v > 1<<32-1 {
		d.fail()
		return 0
	}
	return uint32(v)
}

// int is a count or a size: it must fit 31 bits.
func (d *decoder) int() int {
	v := d.uint()
	if v > 1<<31-1 {
		d.fail()
		return 0
	}
	return int(v)
}

// count is a number of items that follow, each of at least one byte.
func (d *decoder) count() int {
	n := d.int()
	if n > len(d.b) {
		d.fail()
		return 0
	}
	return n
}

func (d *decoder) sint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	v := d.b[0]
	d.b = d.b[1:]
	return v
}

// take returns the next n bytes, aliasing the input.
func (d *decoder) take(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail()
		return nil
	}
	v := d.b[:n:n]
	d.b = d.b[n:]
	return v
}

func (d *decoder) bytes() []byte  { return d.take(d.int()) }
func (d *decoder) string() string { return string(d.bytes()) }

// end reports the first fault, or that bytes were left over.
func (d *decoder) end() error {
	if d.err == nil && len(d.b) > 0 {
		return errCorrupt
	}
	return d.err
}
