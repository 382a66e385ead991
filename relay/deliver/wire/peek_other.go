//go:build !unix

package wire

import "net"

// peeker is for systems where a socket can be looked into without blocking.
type peeker struct{}

func newPeeker(net.Conn) *peeker { return nil }

// quiet cannot tell here; a peer that closed is found by the redial.
func (c *conn) quiet() bool { return true }
