package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// The codes of an Error.
const (
	CodeTimeout            = "timeout"
	CodeConnectionRefused  = "connection_refused"
	CodeConnectionReset    = "connection_reset"
	CodeConnectionFailed   = "connection_failed"
	CodeDNS                = "dns"
	CodeTLS                = "tls"
	CodeDestinationRefused = "destination_refused"
	CodeProtocol           = "protocol"
)

// maxDetail bounds Error.Detail, in bytes: parts of it (a certificate's names)
// are chosen by the peer.
const maxDetail = 200

// Error says why an attempt got no status. Code is stable; Detail is a short
// line of printable ASCII for people.
type Error struct{ Code, Detail string }

func (e *Error) String() string { return e.Code + ": " + e.Detail }

func newError(code, detail string) *Error {
	clean := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, detail)
	if len(clean) > maxDetail {
		clean = clean[:maxDetail]
	}
	return &Error{Code: code, Detail: clean}
}

// ioError turns an error of the connection into an Error; phase says what was
// being done.
func ioError(err error, phase string) *Error {
	var op *net.OpError
	switch {
	case isTimeout(err):
		return newError(CodeTimeout, "the time ran out while "+phase)
	case errors.Is(err, syscall.ECONNREFUSED):
		return newError(CodeConnectionRefused, "nothing listens at the address")
	case isEnd(err):
		return newError(CodeConnectionReset, "the peer ended the connection while "+phase)
	case errors.As(err, &op) && (op.Op == "remote error" || op.Op == "local error"):
		// crypto/tls: an alert, such as one for a missing client certificate.
		return tlsError(err)
	}
	return newError(CodeConnectionFailed, reason(err)+" while "+phase)
}

// dnsError keeps only what kind of failure it was: the error's own text names
// the resolver, which is not the webhook owner's business.
func dnsError(err error) *Error {
	var d *net.DNSError
	switch {
	case errors.As(err, &d) && d.IsNotFound:
		return newError(CodeDNS, "no such host")
	case isTimeout(err):
		return newError(CodeDNS, "the resolver did not answer")
	}
	return newError(CodeDNS, "the lookup failed")
}

func tlsError(err error) *Error {
	if isTimeout(err) {
		return newError(CodeTimeout, "the time ran out while shaking hands (tls)")
	}
	if isEnd(err) {
		return newError(CodeTLS, "the peer ended the connection during the handshake")
	}
	text := err.Error()
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		text = op.Err.Error()
	}
	return newError(CodeTLS, strings.TrimPrefix(text, "tls: "))
}

// reason is the system's word for err, without addresses.
func reason(err error) string {
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	return "the connection failed"
}

func isTimeout(err error) bool {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return true
	}
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// isEnd says whether err means that the peer ended the connection.
func isEnd(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, syscall.ECONNABORTED)
}
