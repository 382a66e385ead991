package wire_test

import (
	"net/netip"
	"sync/atomic"
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
)

// clock is a clock that tests turn.
type clock struct{ ns atomic.Int64 }

func (c *clock) now() time.Time          { return time.Unix(1e9, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func TestIdleConnectionExpires(t *testing.T) {
	var k clock
	o := local()
	o.Now = k.now
	c := newClient(t, o)
	s := serve(t, answers(ok200))
	for _, step := range []struct {
		wait   time.Duration
		reused bool
	}{{0, false}, {0, true}, {4*time.Second - 1, true}, {4 * time.Second, false}, {0, true}} {
		k.advance(step.wait)
		if resp := do(t, c, s.post(t)); resp.Reused != step.reused {
			t.Errorf("after %v: reused=%v", step.wait, resp.Reused)
		}
	}
}

func TestSweeperCloses(t *testing.T) {
	closed := make(chan struct{})
	s := serve(t, func(p *peer) {
		p.request()
		p.say(ok200)
		p.hold()
		close(closed)
	})
	o := local()
	o.IdleTimeout = 20 * time.Millisecond
	do(t, newClient(t, o), s.post(t))
	wait(t, closed)
}

func TestMaxIdlePerHost(t *testing.T) {
	arrived, closed := make(chan struct{}, 2), make(chan int, 2)
	release := make(chan struct{})
	s := serve(t, func(p *peer) {
		p.request()
		arrived <- struct{}{}
		<-release
		p.say(ok200)
		p.hold()
		closed <- p.n
	})
	o := local()
	o.MaxIdlePerHost, o.Now = 1, new(clock).now
	c := newClient(t, o)
	done := make(chan *wire.Error, 2)
	for range 2 {
		req := s.post(t)
		go func() { done <- c.Do(req, new(wire.Response)) }()
	}
	<-arrived
	<-arrived
	close(release)
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	wait(t, closed)
	select {
	case n := <-closed:
		t.Errorf("connection %d closed too", n)
	default:
	}
}

func TestCloseEndsIdleConnections(t *testing.T) {
	closed := make(chan struct{}, 2)
	s := serve(t, func(p *peer) {
		answers(ok200)(p)
		closed <- struct{}{}
	})
	c := wire.New(local())
	do(t, c, s.post(t))
	c.Close()
	c.Close()
	wait(t, closed)
	do(t, c, s.post(t)) // not kept: nobody would close it
	wait(t, closed)
}

// redialScript answers the first request of the first connection; its second
// request it reads whole before misbehaving, so that only the missing answer
// tells.
func redialScript(misbehave, later func(p *peer)) func(*peer) {
	return func(p *peer) {
		if p.n > 1 {
			later(p)
			return
		}
		p.request()
		p.say(ok200)
		p.request()
		misbehave(p)
	}
}

func TestReusedConnectionThatEndsIsRedialled(t *testing.T) {
	for name, end := range map[string]func(p *peer){
		"closed": func(*peer) {},
		"reset":  func(p *peer) { _ = p.Conn.(interface{ SetLinger(int) error }).SetLinger(0) },
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, redialScript(end, answers(ok200)))
			c := newClient(t, local())
			do(t, c, s.post(t))
			resp := do(t, c, s.post(t))
			if resp.Reused || resp.Connect <= 0 || s.conns.Load() != 2 {
				t.Errorf("reused=%v connect=%v connections=%d", resp.Reused, resp.Connect, s.conns.Load())
			}
		})
	}
}

func TestRedialIsDoneOnce(t *testing.T) {
	s := serve(t, redialScript(func(*peer) {}, func(p *peer) { p.request() }))
	c := newClient(t, local())
	do(t, c, s.post(t))
	fails(t, c, s.post(t), wire.CodeConnectionReset)
	if n := s.conns.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

func TestNoRedialAfterAByteOfAnswer(t *testing.T) {
	s := serve(t, redialScript(func(p *peer) { p.say("H") }, answers(ok200)))
	c := newClient(t, local())
	do(t, c, s.post(t))
	fails(t, c, s.post(t), wire.CodeConnectionReset)
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestFreshConnectionThatEnds(t *testing.T) {
	s := serve(t, func(p *peer) { p.request() })
	fails(t, newClient(t, local()), s.post(t), wire.CodeConnectionReset)
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// A reused connection that is merely slow is not resent to.
func TestNoRedialAfterTimeout(t *testing.T) {
	s := serve(t, redialScript((*peer).hold, answers(ok200)))
	c := newClient(t, local())
	do(t, c, s.post(t))
	req := s.post(t)
	req.Timeout = 50 * time.Millisecond
	fails(t, c, req, wire.CodeTimeout)
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// What comes on an idle connection is not the answer to the next request.
func TestStrayAnswerIsNotTaken(t *testing.T) {
	answered, strayed := make(chan struct{}), make(chan struct{})
	s := serve(t, func(p *peer) {
		if p.n > 1 {
			answers(ok200)(p)
			return
		}
		p.request()
		p.say(ok200)
		<-answered
		p.say("HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
		close(strayed)
		p.hold()
	})
	c := newClient(t, local())
	do(t, c, s.post(t))
	close(answered)
	wait(t, strayed)
	if resp := do(t, c, s.post(t)); resp.Status != 200 || resp.Reused {
		t.Errorf("status %d reused=%v", resp.Status, resp.Reused)
	}
}

func TestWhitelistGuardsKeptConnections(t *testing.T) {
	s := serve(t, answers(ok200))
	o := local()
	o.Resolver = names{"shop.test": {"127.0.0.1"}}
	c := newClient(t, o)
	url := "http://shop.test:" + s.port + "/"
	do(t, c, post(t, url))

	narrow := post(t, url)
	narrow.Whitelist = []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}
	fails(t, c, narrow, wire.CodeDestinationRefused)

	wide := post(t, url)
	wide.Whitelist = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	if resp := do(t, c, wide); !resp.Reused {
		t.Error("an allowed kept connection was not used")
	}
}

// A connection belongs to the host that it was dialled for, also where two
// names share an address.
func TestNoReuseAcrossHosts(t *testing.T) {
	s := serve(t, answers(ok200))
	o := local()
	o.Resolver = names{"a.test": {"127.0.0.1"}, "b.test": {"127.0.0.1"}}
	c := newClient(t, o)
	do(t, c, post(t, "http://a.test:"+s.port+"/"))
	if resp := do(t, c, post(t, "http://b.test:"+s.port+"/")); resp.Reused {
		t.Error("reused another host's connection")
	}
}
