package api

import (
	"io"
	"net"
	"sync/atomic"
	"time"
)

// What is read of a body that was refused: a client that still writes when the
// connection closes sees a reset instead of its answer.
const (
	drainBytes = 64 << 20
	drainTime  = 2 * time.Second
)

// drainListener accepts connections that can be drained.
type drainListener struct{ net.Listener }

func (l drainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &drainConn{Conn: c}, nil
}

// drainConn reads on for a while when it is closed, if it was told to.
type drainConn struct {
	net.Conn
	drain atomic.Bool
}

func (c *drainConn) Close() error {
	if c.drain.Swap(false) {
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil && c.SetReadDeadline(time.Now().Add(drainTime)) == nil {
			_, _ = io.CopyN(io.Discard, c.Conn, drainBytes) // whatever ends it, the connection is closed
		}
	}
	return c.Conn.Close()
}
