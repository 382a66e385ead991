package wire

import (
	"bufio"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
)

const (
	// smallBuffer holds the header of a usual answer; only a longer one takes
	// a buffer of MaxHeader.
	smallBuffer = 4 << 10
	// copyBody is the longest body copied behind its head, to be sent in one
	// write; a longer one is sent from where it is.
	copyBody = 16 << 10
)

// exchange is the working memory of one attempt. Between attempts it waits in
// the client's pool and holds no reference to a request or connection.
type exchange struct {
	req             *Request
	resp            *Response
	start, deadline time.Time

	conn     *conn
	reusable bool  // the connection may carry another request
	readErr  error // what ended reading, before bufio and fasthttp wrap it

	out   []byte
	parts [2][]byte
	vec   net.Buffers
	small *bufio.Reader // over the exchange itself
	in    *bufio.Reader // small, or a larger one over small
}

func newExchange() *exchange {
	x := &exchange{}
	x.small = bufio.NewReaderSize(x, smallBuffer)
	return x
}

func (x *exchange) release() {
	x.req, x.resp, x.conn, x.in, x.readErr = nil, nil, nil, nil, nil
	x.parts, x.vec = [2][]byte{}, nil
}

// Read reads from the connection and notes why it could not.
func (x *exchange) Read(p []byte) (int, error) {
	n, err := x.conn.rw.Read(p)
	if err != nil {
		x.readErr = err
	}
	return n, err
}

// run sends the request on c and reads the answer. unanswered says that the
// connection ended before one byte of it came.
func (x *exchange) run(c *conn) (err *Error, unanswered bool) {
	x.conn, x.reusable, x.readErr = c, false, nil
	x.small.Reset(x)
	x.in = x.small
	x.resp.Remote = c.remote
	if err := c.raw.SetDeadline(x.deadline); err != nil {
		return ioError(err, "sending the request"), true
	}
	sendErr := x.send()
	if sendErr != nil && isTimeout(sendErr) {
		return ioError(sendErr, "sending the request"), false
	}
	// A peer may answer and hang up before it has read the whole body, so
	// that sending fails but its answer is there.
	sent := time.Now()
	if _, err := x.in.Peek(1); err != nil {
		return ioError(x.readErr, "waiting for the answer"), isEnd(x.readErr)
	}
	x.resp.FirstByte = time.Since(sent)
	if err := x.readHeader(); err != nil {
		return err, false
	}
	x.resp.Duration = time.Since(x.start)
	whole := x.readBody()
	x.reusable = whole && sendErr == nil && x.resp.header.IsHTTP11() &&
		!x.resp.header.ConnectionClose() && x.in.Buffered() == 0 && x.small.Buffered() == 0
	return nil, false
}

// send writes the request in one go.
func (x *exchange) send() error {
	b := append(x.out[:0], "POST "...)
	b = append(b, x.req.Target.RequestURI...)
	b = append(b, " HTTP/1.1\r\n"...)
	b = append(b, x.req.Head...)
	b = append(b, "Content-Length: "...)
	b = strconv.AppendInt(b, int64(len(x.req.Body)), 10)
	b = append(b, "\r\n\r\n"...)
	if len(x.req.Body) <= copyBody {
		b = append(b, x.req.Body...)
		x.out = b
		_, err := x.conn.rw.Write(b)
		return err
	}
	x.out = b
	x.parts = [2][]byte{b, x.req.Body}
	x.vec = x.parts[:]
	_, err := x.vec.WriteTo(x.conn.rw)
	return err
}

// readHeader reads up to the end of the final answer's header.
func (x *exchange) readHeader() *Error {
	h := &x.resp.header
	for range maxInterim + 1 {
		if err := x.readBlock(); err != nil {
			return err
		}
		status := h.StatusCode()
		switch {
		case status < 100 || string(h.Protocol()[:7]) != "HTTP/1.":
			return newError(CodeProtocol, "the answer is not HTTP/1.1")
		case status == fasthttp.StatusSwitchingProtocols:
			return newError(CodeProtocol, "the peer switched protocols unasked")
		case status >= 200:
			x.resp.Status = status
			if after := h.Peek(fasthttp.HeaderRetryAfter); len(after) > 0 && len(after) <= maxRetryAfter {
				x.resp.RetryAfter = string(after)
			}
			return nil
		}
	}
	return newError(CodeProtocol, "too many interim answers")
}

// readBlock reads one header block, into a larger buffer if it must.
func (x *exchange) readBlock() *Error {
	err := x.resp.header.Read(x.in)
	if err == nil {
		return nil
	}
	if x.in == x.small && isTooSmall(err) {
		x.resp.bulky = true
		x.in = bufio.NewReaderSize(x.small, MaxHeader)
		err = x.resp.header.Read(x.in)
	}
	switch {
	case err == nil:
		return nil
	case isTooSmall(err):
		return newError(CodeProtocol, "the answer's header is longer than 64 KB")
	case x.readErr != nil:
		return ioError(x.readErr, "reading the answer's header")
	}
	return newError(CodeProtocol, "the answer is not HTTP/1.1")
}

func isTooSmall(err error) bool {
	var small *fasthttp.ErrSmallBuffer
	return errors.As(err, &small)
}
