package wire

import (
	"net/netip"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/omnisales/edgerelay/relay/destination"
)

// Limits of an answer.
const (
	// MaxBody is how much of an answer's body is kept, in bytes.
	MaxBody = 16 << 10
	// MaxHeader is the size of the longest answer header accepted, in bytes.
	MaxHeader = 64 << 10
	// maxDrain is how much more of a body of known length is read to keep the
	// connection.
	maxDrain = 16 << 10
	// maxInterim is how many 1xx answers may precede the answer.
	maxInterim = 8
	// maxRetryAfter bounds the Retry-After value handed on, in bytes.
	maxRetryAfter = 64
)

// Request is one attempt. The caller keeps ownership of all of it and must
// not change it before Do returns.
type Request struct {
	Target *destination.Target
	// Head is the header block after the request line, each line ending in
	// CRLF, Host included, Content-Length and the empty line left out.
	Head []byte
	Body []byte
	// Timeout runs from the call of Do to the end of the answer.
	Timeout time.Duration
	// Whitelist narrows the addresses that may be dialled; empty means all
	// that the policy allows.
	Whitelist []netip.Prefix
}

// Response is what came back. Do resets it, so that one value serves many
// attempts, one at a time; after an *Error the fields tell how far the attempt got.
type Response struct {
	Status int // 200-999; 0 where no answer came
	// Body is valid until the next Do with this Response.
	Body []byte
	// Truncated says that Body is not the whole body: it was longer than
	// MaxBody, or ended or was cut by the deadline before its end.
	Truncated bool
	Remote    string // address and port of the peer; "" where none was reached
	Reused    bool   // answered on a kept connection: DNS, Connect and TLS are 0
	// FirstByte runs from the request written to the first byte of an answer.
	DNS, Connect, TLS, FirstByte time.Duration
	// Duration is the whole attempt: to the last response header, or to the
	// error.
	Duration   time.Duration
	RetryAfter string // as sent, at most 64 bytes; "" for none

	header fasthttp.ResponseHeader
	bulky  bool // header holds more memory than a usual answer needs
}

// VisitHeader calls fn with each header of the answer. The bytes are valid
// during the call. "Connection: close" is also reported of an answer that
// only ends with its connection.
func (r *Response) VisitHeader(fn func(key, value []byte)) {
	for key, value := range r.header.All() {
		fn(key, value)
	}
}

func (r *Response) reset() {
	r.Status, r.Body, r.Truncated = 0, r.Body[:0], false
	r.Remote, r.Reused, r.RetryAfter = "", false, ""
	r.DNS, r.Connect, r.TLS, r.FirstByte, r.Duration = 0, 0, 0, 0, 0
	if r.bulky {
		r.header, r.bulky = fasthttp.ResponseHeader{}, false
	}
	r.header.Reset()
	// Without this fasthttp invents a content type where none was sent.
	r.header.SetNoDefaultContentType(true)
}
