package wire

import (
	"bytes"
	"io"
	"slices"

	"github.com/valyala/fasthttp"
)

// maxFraming bounds what a chunked body may spend on chunk sizes, extensions
// and trailers, in bytes.
const maxFraming = 64 << 10

// readBody reads the body, of which MaxBody is kept. The status has decided
// already, so an error here only ends the connection. It reports whether the
// connection stands at the end of the answer.
func (x *exchange) readBody() (atEnd bool) {
	r := x.resp
	length := r.header.ContentLength()
	switch {
	case r.Status == fasthttp.StatusNoContent || r.Status == fasthttp.StatusNotModified || length == 0:
		return true
	case length == -1:
		atEnd = x.readChunked()
		r.Truncated = !atEnd
		return atEnd
	case length < 0:
		r.Truncated = !x.readToEnd()
		return false
	}
	whole := x.keep(min(length, MaxBody))
	r.Truncated = !whole || length > MaxBody
	if !whole || length > MaxBody+maxDrain {
		return false
	}
	rest := length - len(r.Body)
	n, _ := x.in.Discard(rest)
	return n == rest
}

// keep appends n bytes to the body and reports whether they all came.
func (x *exchange) keep(n int) bool {
	b := x.resp.Body
	at := len(b)
	b = slices.Grow(b, n)[:at+n]
	got, err := io.ReadFull(x.in, b[at:])
	x.resp.Body = b[:at+got]
	return err == nil
}

// readToEnd reads until the peer closes and reports whether the body was
// whole: ended, and not longer than MaxBody.
func (x *exchange) readToEnd() bool {
	if x.keep(MaxBody) {
		_, err := x.in.ReadByte()
		return err == io.EOF
	}
	return x.readErr == io.EOF
}

// readChunked reads a chunked body (RFC 9112, section 7.1) and reports
// whether it was whole. One longer than MaxBody is left where it is.
func (x *exchange) readChunked() bool {
	framing := maxFraming
	for {
		line, ok := x.line(&framing)
		if !ok {
			return false
		}
		size, ok := chunkSize(line)
		if !ok {
			return false
		}
		if size == 0 {
			return x.skipTrailer(&framing)
		}
		room := MaxBody - len(x.resp.Body)
		if size > room {
			x.keep(room)
			return false
		}
		if !x.keep(size) {
			return false
		}
		if line, ok := x.line(&framing); !ok || len(line) != 0 {
			return false
		}
	}
}

// skipTrailer reads to the empty line that ends a chunked body.
func (x *exchange) skipTrailer(framing *int) bool {
	for {
		line, ok := x.line(framing)
		if !ok {
			return false
		}
		if len(line) == 0 {
			return true
		}
	}
}

// line reads one line of framing and returns it without its CRLF. It reports
// false for one without CRLF, one longer than the buffer, and where the
// framing's allowance is used up.
func (x *exchange) line(framing *int) ([]byte, bool) {
	line, err := x.in.ReadSlice('\n')
	*framing -= len(line)
	if err != nil || *framing < 0 {
		return nil, false
	}
	return bytes.CutSuffix(line, []byte("\r\n"))
}

// chunkSize parses the hexadecimal size before a chunk's extensions.
func chunkSize(line []byte) (int, bool) {
	digits, _, _ := bytes.Cut(line, []byte(";"))
	digits = bytes.TrimRight(digits, " \t")
	if len(digits) == 0 || len(digits) > 7 {
		// 7 digits are 256 MB: a longer size is malformed or nothing to keep.
		return 0, false
	}
	size := 0
	for _, c := range digits {
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		size = size<<4 | int(c)
	}
	return size, true
}
