package wire

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/omnisales/edgerelay/relay/destination"
)

// Resolver looks up the addresses of a host; *net.Resolver is one.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Options of a Client. The zero value works.
type Options struct {
	// Policy decides which addresses may be dialled.
	Policy destination.Policy
	// MaxIdlePerHost bounds the idle connections kept for one scheme, host
	// and port; 512 by default.
	MaxIdlePerHost int
	// IdleTimeout is how long after its last use a connection may be used
	// again; 4 s by default, below the 5 s after which Node closes.
	IdleTimeout time.Duration
	// RootCAs verify the peers' certificates; nil means the system's.
	RootCAs *x509.CertPool
	// Resolver is net.DefaultResolver by default.
	Resolver Resolver
	// Now is the clock that idle connections age by; time.Now by default.
	// Deadlines are the network's and always real.
	Now func() time.Time
}

const (
	defaultMaxIdlePerHost = 512
	defaultIdleTimeout    = 4 * time.Second
	tlsSessions           = 4096
)

// Client makes attempts and keeps connections. Its methods may be called from
// any number of goroutines.
type Client struct {
	policy   destination.Policy
	resolver Resolver
	tls      *tls.Config // without ServerName: cloned for each connection
	idle     *pool
	spare    sync.Pool // of *exchange
}

// New starts the sweeper of idle connections; Close ends it.
func New(o Options) *Client {
	if o.MaxIdlePerHost <= 0 {
		o.MaxIdlePerHost = defaultMaxIdlePerHost
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = defaultIdleTimeout
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Client{
		policy:   o.Policy,
		resolver: o.Resolver,
		tls: &tls.Config{
			MinVersion:         tls.VersionTLS12,
			RootCAs:            o.RootCAs,
			NextProtos:         []string{"http/1.1"},
			ClientSessionCache: tls.NewLRUClientSessionCache(tlsSessions),
		},
		idle: newPool(o.MaxIdlePerHost, o.IdleTimeout, o.Now),
	}
	c.spare.New = func() any { return newExchange() }
	return c
}

// Close closes the idle connections and waits for the sweeper. An attempt
// still running goes on to its end and then closes its connection. Close may
// be called more than once.
func (c *Client) Close() { c.idle.close() }

// Do makes one attempt and fills resp, blocking for at most req.Timeout. A nil
// result means that the peer answered with resp.Status, whatever it is.
func (c *Client) Do(req *Request, resp *Response) *Error {
	x := c.spare.Get().(*exchange)
	x.req, x.resp, x.start = req, resp, time.Now()
	x.deadline = x.start.Add(req.Timeout)
	resp.reset()
	err := c.attempt(x)
	if err != nil {
		resp.Duration = time.Since(x.start)
	}
	x.release()
	c.spare.Put(x)
	return err
}

// attempt tries a kept connection first. One that ended before a byte of
// answer had been closed by the peer while the request was on its way, as far
// as can be known, so the request is sent once more on a fresh connection.
func (c *Client) attempt(x *exchange) *Error {
	key := keyOf(x.req.Target)
	if kept := c.reuse(key, x.req.Whitelist); kept != nil {
		x.resp.Reused = true
		err, unanswered := x.run(kept)
		if !unanswered {
			c.settle(key, x)
			return err
		}
		_ = kept.raw.Close()
		x.resp.reset()
	}
	fresh, err := c.dial(x)
	if err != nil {
		return err
	}
	err, _ = x.run(fresh)
	c.settle(key, x)
	return err
}

// settle keeps the connection of a finished exchange or closes it.
func (c *Client) settle(key hostKey, x *exchange) {
	if !x.reusable || !c.idle.put(key, x.conn) {
		// An error of closing changes nothing about the attempt.
		_ = x.conn.raw.Close()
	}
}

// reuse takes the newest kept connection that the whitelist allows and that
// the peer has neither closed nor written to meanwhile.
func (c *Client) reuse(key hostKey, whitelist []netip.Prefix) *conn {
	for {
		kept := c.idle.take(key, func(addr netip.Addr) bool {
			return len(whitelist) == 0 || c.policy.Check(addr, whitelist) == nil
		})
		if kept == nil || kept.quiet() {
			return kept
		}
		_ = kept.raw.Close()
	}
}
