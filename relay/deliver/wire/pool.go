package wire

import (
	"net/netip"
	"sync"
	"time"

	"github.com/omnisales/edgerelay/relay/destination"
)

// hostKey names the peers that a connection may be reused for.
type hostKey struct {
	addr string // host:port
	tls  bool
}

func keyOf(t *destination.Target) hostKey { return hostKey{t.Addr, t.TLS} }

// stack holds the idle connections of one hostKey, oldest first. The newest
// is used first, so that what a burst left behind grows old and is closed.
type stack struct{ conns []*conn }

// pool keeps idle connections and closes them when they are too old.
type pool struct {
	perHost int
	timeout time.Duration
	now     func() time.Time
	stop    chan struct{}
	swept   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	hosts  map[hostKey]*stack
}

func newPool(perHost int, timeout time.Duration, now func() time.Time) *pool {
	p := &pool{
		perHost: perHost, timeout: timeout, now: now,
		stop: make(chan struct{}), hosts: map[hostKey]*stack{},
	}
	p.swept.Go(p.sweep)
	return p
}

// take removes and returns the newest connection that is young enough and
// whose peer is allowed, or nil.
func (p *pool) take(key hostKey, allowed func(netip.Addr) bool) *conn {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.hosts[key]
	if s == nil {
		return nil
	}
	for i := len(s.conns) - 1; i >= 0; i-- {
		c := s.conns[i]
		if now.Sub(c.idleSince) >= p.timeout {
			return nil // the rest is older still: the sweeper's
		}
		if !allowed(c.addr) {
			continue
		}
		copy(s.conns[i:], s.conns[i+1:])
		s.conns[len(s.conns)-1] = nil
		s.conns = s.conns[:len(s.conns)-1]
		return c
	}
	return nil
}

// put keeps c, or reports false: the pool is closed or full for that host.
func (p *pool) put(key hostKey, c *conn) bool {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	s := p.hosts[key]
	if s == nil {
		s = &stack{}
		p.hosts[key] = s
	}
	if len(s.conns) >= p.perHost {
		return false
	}
	c.idleSince = now
	s.conns = append(s.conns, c)
	return true
}

// sweep closes what is too old, four times in an idle timeout.
func (p *pool) sweep() {
	tick := time.NewTicker(max(p.timeout/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case <-tick.C:
			for _, c := range p.expired() {
				_ = c.raw.Close()
			}
		}
	}
}

// expired removes and returns the connections that are too old.
func (p *pool) expired() []*conn {
	now := p.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	var old []*conn
	for key, s := range p.hosts {
		n := 0
		for n < len(s.conns) && now.Sub(s.conns[n].idleSince) >= p.timeout {
			n++
		}
		old = append(old, s.conns[:n]...)
		rest := copy(s.conns, s.conns[n:])
		clear(s.conns[rest:])
		s.conns = s.conns[:rest]
		if rest == 0 {
			delete(p.hosts, key)
		}
	}
	return old
}

func (p *pool) close() {
	p.mu.Lock()
	hosts, already := p.hosts, p.closed
	p.hosts, p.closed = map[hostKey]*stack{}, true
	p.mu.Unlock()
	for _, s := range hosts {
		for _, c := range s.conns {
			_ = c.raw.Close()
		}
	}
	if !already {
		close(p.stop)
	}
	p.swept.Wait()
}
