package wire_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
)

func TestRequestOnTheWire(t *testing.T) {
	for _, size := range []int{0, 14, 16 << 10, 900 << 10} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			type got struct {
				head string
				body []byte
			}
			seen := make(chan got, 1)
			s := serve(t, func(p *peer) {
				head, body, _ := p.request()
				seen <- got{head, body}
				p.say("HTTP/1.1 429 Slow\r\nRetry-After: 7\r\nX-Mine: a\r\nContent-Length: 2\r\n\r\nno")
			})
			req := s.post(t)
			req.Body = []byte(repeat(size))
			resp := do(t, newClient(t, local()), req)
			g := <-seen
			want := "POST /hook?a=1 HTTP/1.1\r\nHost: " + s.addr +
				"\r\nContent-Type: application/json\r\nContent-Length: " + fmt.Sprint(size) + "\r\n\r\n"
			if g.head != want {
				t.Errorf("head %q, want %q", g.head, want)
			}
			if string(g.body) != string(req.Body) {
				t.Errorf("body of %d bytes differs", len(g.body))
			}
			headers := map[string]string{}
			resp.VisitHeader(func(k, v []byte) { headers[string(k)] = string(v) })
			if len(headers) != 3 || headers["X-Mine"] != "a" {
				t.Errorf("headers %v", headers)
			}
			if resp.Status != 429 || resp.RetryAfter != "7" || string(resp.Body) != "no" || resp.Remote != s.addr {
				t.Errorf("answer %d %q %q %q", resp.Status, resp.RetryAfter, resp.Body, resp.Remote)
			}
			if resp.Connect <= 0 || resp.FirstByte <= 0 || resp.DNS != 0 || resp.TLS != 0 ||
				resp.Duration < resp.Connect+resp.FirstByte {
				t.Errorf("phases %v %v %v %v of %v", resp.DNS, resp.Connect, resp.TLS, resp.FirstByte, resp.Duration)
			}
		})
	}
}

func TestAnyStatusIsAnAnswer(t *testing.T) {
	for _, status := range []int{200, 204, 301, 302, 307, 404, 410, 500, 599} {
		s := serve(t, answers(fmt.Sprintf(
			"HTTP/1.1 %d X\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n", status)))
		if resp := do(t, newClient(t, local()), s.post(t)); resp.Status != status {
			t.Errorf("status %d, want %d", resp.Status, status)
		}
		if n := s.conns.Load(); n != 1 {
			t.Errorf("status %d: %d connections", status, n)
		}
	}
}

func TestTimeoutInEveryPhase(t *testing.T) {
	scripts := map[string]string{
		"no answer":    "",
		"half a line":  "HTTP/1.1 20",
		"half header":  "HTTP/1.1 200 OK\r\nContent-Le",
		"only interim": "HTTP/1.1 100 Continue\r\n\r\n",
		"long header":  "HTTP/1.1 200 OK\r\nX: " + repeat(20<<10),
	}
	for name, script := range scripts {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(p *peer) {
				p.request()
				p.say(script)
				p.hold()
			})
			req := s.post(t)
			req.Timeout = 50 * time.Millisecond
			_, resp := fails(t, newClient(t, local()), req, wire.CodeTimeout)
			if resp.Duration < req.Timeout {
				t.Errorf("gave up after %v", resp.Duration)
			}
		})
	}
	t.Run("body never read", func(t *testing.T) {
		stop := make(chan struct{})
		s := serve(t, func(*peer) { <-stop })
		defer close(stop)
		req := s.post(t)
		req.Body, req.Timeout = make([]byte, 64<<20), 50*time.Millisecond
		fails(t, newClient(t, local()), req, wire.CodeTimeout)
	})
	t.Run("handshake", func(t *testing.T) {
		s := serve(t, (*peer).hold)
		req := post(t, "https://"+s.addr+"/")
		req.Timeout = 50 * time.Millisecond
		fails(t, newClient(t, local()), req, wire.CodeTimeout)
	})
	t.Run("lookup", func(t *testing.T) {
		o := local()
		o.Resolver = names{}
		req := post(t, "http://slow.test/")
		req.Timeout = 50 * time.Millisecond
		fails(t, newClient(t, o), req, wire.CodeTimeout)
	})
	t.Run("already over", func(t *testing.T) {
		s := serve(t, answers(ok200))
		req := s.post(t)
		req.Timeout = 0
		fails(t, newClient(t, local()), req, wire.CodeTimeout)
	})
}

// The status decides: what happens to the body afterwards is no failure.
func TestStalledBodyIsNoFailure(t *testing.T) {
	closed := make(chan struct{})
	s := serve(t, func(p *peer) {
		p.request()
		p.say("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		p.hold()
		close(closed)
	})
	req := s.post(t)
	req.Timeout = 50 * time.Millisecond
	resp := do(t, newClient(t, local()), req)
	if resp.Status != 200 || string(resp.Body) != "half" || !resp.Truncated {
		t.Errorf("%d %q truncated=%v", resp.Status, resp.Body, resp.Truncated)
	}
	wait(t, closed)
}

func TestEarlyAnswerIsHeard(t *testing.T) {
	for range 20 {
		s := serve(t, func(p *peer) {
			for line := ""; line != "\r\n"; {
				var err error
				if line, err = p.r.ReadString('\n'); err != nil {
					return
				}
			}
			p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
		})
		req := s.post(t)
		req.Body = make([]byte, 16<<20) // more than the sockets buffer
		resp := do(t, newClient(t, local()), req)
		if resp.Status != 413 {
			t.Fatalf("status %d", resp.Status)
		}
	}
}

func TestInterimAnswers(t *testing.T) {
	interim := "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
	s := serve(t, answers(interim+ok200))
	c := newClient(t, local())
	for i := range 2 {
		resp := do(t, c, s.post(t))
		if resp.Status != 200 || string(resp.Body) != "ok" || resp.Reused != (i == 1) {
			t.Errorf("%d %q reused=%v", resp.Status, resp.Body, resp.Reused)
		}
		resp.VisitHeader(func(k, _ []byte) {
			if string(k) == "Link" {
				t.Error("an interim header among the answer's")
			}
		})
	}
	for _, bad := range []string{strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 9) + ok200, "HTTP/1.1 101 Up\r\n\r\n"} {
		s := serve(t, answers(bad))
		fails(t, newClient(t, local()), s.post(t), wire.CodeProtocol)
	}
}

func TestMalformedAnswers(t *testing.T) {
	flood := "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Flood: "+repeat(100)+"\r\n", 700)
	for name, answer := range map[string]string{
		"garbage":        "hello there, no status line\r\n\r\n",
		"other protocol": "SSH-2.0-OpenSSH_9.6\r\n\r\n",
		"http/2":         "HTTP/2.0 200 OK\r\n\r\n",
		"no status":      "HTTP/1.1 abc OK\r\n\r\n",
		"status 099":     "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
		"bad length":     "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"two lengths":    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		"bad coding":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
		"flood":          flood,
		"one long line":  "HTTP/1.1 200 OK\r\nX: " + repeat(70<<10),
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, func(p *peer) {
				p.request()
				p.say(answer)
				p.hold()
			})
			err, _ := fails(t, newClient(t, local()), s.post(t), wire.CodeProtocol)
			if len(err.String()) > 100 {
				t.Errorf("long: %s", err)
			}
		})
	}
	s := serve(t, answers("HTTP/1.1 200 OK\r\nX-Long: "+repeat(40<<10)+"\r\nContent-Length: 2\r\n\r\nok"))
	c, resp := newClient(t, local()), new(wire.Response)
	for range 3 {
		if err := c.Do(s.post(t), resp); err != nil || string(resp.Body) != "ok" {
			t.Fatalf("a header of 40 KB: %v %q", err, resp.Body)
		}
	}
	if !resp.Reused {
		t.Error("connection lost after a long header")
	}
}

// Each of many concurrent attempts gets its own answer.
func TestConcurrentAttempts(t *testing.T) {
	s := serve(t, func(p *peer) {
		for {
			_, body, ok := p.request()
			if !ok {
				return
			}
			p.say(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
		}
	})
	c := newClient(t, local())
	var wg sync.WaitGroup
	for w := range 32 {
		req := s.post(t)
		wg.Go(func() {
			resp := new(wire.Response)
			for i := range 40 {
				req.Body = fmt.Appendf(nil, "worker %d request %d", w, i)
				if err := c.Do(req, resp); err != nil || string(resp.Body) != string(req.Body) {
					t.Errorf("%s: %v, got %q", req.Body, err, resp.Body)
					return
				}
			}
		})
	}
	wg.Wait()
}
