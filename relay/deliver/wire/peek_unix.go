//go:build unix

package wire

import (
	"net"
	"syscall"
)

// peeker looks into the receive queue of an idle connection. Its function and
// buffer are made once, so that a look allocates nothing.
type peeker struct {
	raw   syscall.RawConn
	look  func(fd uintptr)
	buf   [1]byte
	quiet bool
}

func newPeeker(c net.Conn) *peeker {
	sys, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return nil
	}
	p := &peeker{raw: raw}
	p.look = func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), p.buf[:], syscall.MSG_PEEK)
		p.quiet = err == syscall.EAGAIN || err == syscall.EINTR
	}
	return p
}

// quiet says whether an idle connection is open and nothing has come on it.
// Whatever comes while no request is out, an end, a 408, a TLS goodbye, is not
// the answer to the next request. Go's sockets never block, so the look does
// not either.
func (c *conn) quiet() bool {
	if c.peek == nil {
		return true
	}
	c.peek.quiet = false
	err := c.peek.raw.Control(c.peek.look)
	return err == nil && c.peek.quiet
}
