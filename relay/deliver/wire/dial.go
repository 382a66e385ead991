package wire

import (
	"context"
	"crypto/tls"
	"net"
	"net/netip"
	"time"
)

// conn is a connection to a checked address.
type conn struct {
	raw       net.Conn // TCP. Closed directly: a TLS goodbye could block on a peer that does not read
	rw        net.Conn // raw, or TLS over it
	addr      netip.Addr
	remote    string
	idleSince time.Time // guarded by the pool's lock
	peek      *peeker
}

// minConnect is the least time that one of several addresses gets to connect,
// as far as the deadline allows.
const minConnect = 2 * time.Second

// dial makes a new connection for the exchange and records its phases.
func (c *Client) dial(x *exchange) (*conn, *Error) {
	addrs, err := c.resolve(x)
	if err != nil {
		return nil, err
	}
	allowed, err := c.allowed(addrs, x.req)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	fresh, err := connect(allowed, x.req.Target.Port, x.deadline)
	x.resp.Connect = time.Since(began)
	if err != nil {
		return nil, err
	}
	x.resp.Remote = fresh.remote
	if !x.req.Target.TLS {
		return fresh, nil
	}
	if err := c.secure(x, fresh); err != nil {
		_ = fresh.raw.Close()
		return nil, err
	}
	return fresh, nil
}

// resolve returns the addresses of the target's host, in the resolver's order.
func (c *Client) resolve(x *exchange) ([]netip.Addr, *Error) {
	t := x.req.Target
	if t.IP.IsValid() {
		return []netip.Addr{t.IP}, nil
	}
	began := time.Now()
	ctx, cancel := context.WithDeadline(context.Background(), x.deadline)
	defer cancel()
	addrs, err := c.resolver.LookupNetIP(ctx, "ip", t.Host)
	x.resp.DNS = time.Since(began)
	if ctx.Err() != nil || !time.Now().Before(x.deadline) {
		return nil, newError(CodeTimeout, "the time ran out while looking up the host")
	}
	if err != nil {
		return nil, dnsError(err)
	}
	if len(addrs) == 0 {
		return nil, newError(CodeDNS, "the host has no address")
	}
	return addrs, nil
}

// allowed keeps the addresses that may be dialled for the request. It checks
// IPv4 unmapped, as it is dialled.
func (c *Client) allowed(addrs []netip.Addr, req *Request) ([]netip.Addr, *Error) {
	refused := ""
	ok := make([]netip.Addr, 0, len(addrs))
	for _, addr := range addrs {
		addr = addr.Unmap()
		if err := c.policy.Check(addr, req.Whitelist); err != nil {
			refused = c.refusal(addr, req, err)
			continue
		}
		ok = append(ok, addr)
	}
	if len(ok) == 0 {
		return nil, newError(CodeDestinationRefused, refused)
	}
	return ok, nil
}

// refusal words why addr is not dialled. What an inner name resolves to is
// not told, or webhooks could be used to map the operator's network.
func (c *Client) refusal(addr netip.Addr, req *Request, why error) string {
	if req.Target.IP.IsValid() || c.policy.Check(addr, nil) == nil {
		return why.Error()
	}
	return "the host's address is not public: an operator may allow it with --allow-destinations"
}

// connect tries the addresses in order, each with its share of the time left,
// and returns the first connection, or else the first error.
func connect(addrs []netip.Addr, port string, deadline time.Time) (*conn, *Error) {
	var first *Error
	for i, addr := range addrs {
		left := time.Until(deadline)
		if left <= 0 {
			break
		}
		share := min(left, max(left/time.Duration(len(addrs)-i), minConnect))
		// No keep-alive probes: deadlines and the idle timeout find dead peers.
		d := net.Dialer{Timeout: share, KeepAlive: -1}
		raw, err := d.Dial("tcp", net.JoinHostPort(addr.String(), port))
		if err == nil {
			return &conn{
				raw: raw, rw: raw, addr: addr,
				remote: raw.RemoteAddr().String(), peek: newPeeker(raw),
			}, nil
		}
		if first == nil {
			first = ioError(err, "connecting")
		}
	}
	if first == nil {
		first = newError(CodeTimeout, "the time ran out before connecting")
	}
	return nil, first
}

// secure does the TLS handshake, with the peer's certificate verified for the
// target's host.
func (c *Client) secure(x *exchange, fresh *conn) *Error {
	began := time.Now()
	cfg := c.tls.Clone()
	cfg.ServerName = x.req.Target.Host
	secured := tls.Client(fresh.raw, cfg)
	err := fresh.raw.SetDeadline(x.deadline)
	if err == nil {
		err = secured.Handshake()
	}
	x.resp.TLS = time.Since(began)
	if err != nil {
		return tlsError(err)
	}
	fresh.rw = secured
	return nil
}
