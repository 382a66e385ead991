package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
	"github.com/omnisales/edgerelay/relay/destination"
)

// The client that the benchmark compares with never stops its cleaner.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"))
}

// server runs a script on each connection that comes in.
type server struct {
	addr  string
	port  string
	conns atomic.Int32 // accepted so far
}

// peer is the server's end of a connection.
type peer struct {
	net.Conn
	r *bufio.Reader
	n int // 1 for the first connection
}

// serve starts a server on loopback that ends with the test.
func serve(t testing.TB, script func(p *peer)) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	s := &server{addr: l.Addr().String(), port: port}
	var mu sync.Mutex
	var open []net.Conn
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			p := &peer{Conn: c, r: bufio.NewReader(c), n: int(s.conns.Add(1))}
			running.Go(func() {
				defer c.Close()
				script(p)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		running.Wait()
	})
	return s
}

// request reads one request and returns its header block and body; ok is
// false at the connection's end.
func (p *peer) request() (head string, body []byte, ok bool) {
	var b strings.Builder
	length := 0
	for {
		line, err := p.r.ReadString('\n')
		if err != nil {
			return b.String(), nil, false
		}
		b.WriteString(line)
		if v, found := strings.CutPrefix(line, "Content-Length: "); found {
			length, _ = strconv.Atoi(strings.TrimSpace(v))
		}
		if line == "\r\n" {
			break
		}
	}
	body = make([]byte, length)
	_, err := io.ReadFull(p.r, body)
	return b.String(), body, err == nil
}

// say writes s; a failure shows in what the client gets.
func (p *peer) say(s string) { _, _ = io.WriteString(p, s) }

// hold waits for the client to close the connection.
func (p *peer) hold() { _, _ = io.Copy(io.Discard, p.r) }

// answers replies to every request with s, and holds.
func answers(s string) func(*peer) {
	return func(p *peer) {
		for {
			if _, _, ok := p.request(); !ok {
				return
			}
			p.say(s)
		}
	}
}

const ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func newClient(t testing.TB, o wire.Options) *wire.Client {
	t.Helper()
	c := wire.New(o)
	t.Cleanup(c.Close)
	return c
}

// local allows loopback, where every test server lives.
func local() wire.Options {
	return wire.Options{Policy: destination.Policy{AllowLoopback: true}}
}

func post(t testing.TB, url string) *wire.Request {
	t.Helper()
	target, err := destination.ParseURL(url, false)
	if err != nil {
		t.Fatal(err)
	}
	return &wire.Request{
		Target:  target,
		Head:    []byte("Host: " + target.HostHeader + "\r\nContent-Type: application/json\r\n"),
		Body:    []byte(`{"id":"evt_1"}`),
		Timeout: 20 * time.Second, // the longest that a broken test takes
	}
}

func (s *server) post(t testing.TB) *wire.Request {
	t.Helper()
	return post(t, "http://"+s.addr+"/hook?a=1")
}

// do makes an attempt that must get a status.
func do(t testing.TB, c *wire.Client, req *wire.Request) *wire.Response {
	t.Helper()
	resp := new(wire.Response)
	if err := c.Do(req, resp); err != nil {
		t.Fatalf("attempt failed: %s", err)
	}
	return resp
}

// fails makes an attempt that must fail with code.
func fails(t testing.TB, c *wire.Client, req *wire.Request, code string) (*wire.Error, *wire.Response) {
	t.Helper()
	resp := new(wire.Response)
	err := c.Do(req, resp)
	if err == nil {
		t.Fatalf("status %d, want %s", resp.Status, code)
	}
	if err.Code != code {
		t.Fatalf("%s, want %s", err, code)
	}
	if resp.Status != 0 {
		t.Errorf("status %d beside the error %s", resp.Status, err)
	}
	return err, resp
}

// names is a resolver with fixed answers.
type names map[string][]string

func (n names) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	switch host {
	case "slow.test":
		<-ctx.Done()
		return nil, ctx.Err()
	case "broken.test":
		return nil, errors.New("10.1.2.3 is broken")
	case "silent.test":
		return nil, &net.DNSError{Err: "read udp 10.1.2.3:53: i/o timeout", Name: host, IsTimeout: true}
	}
	list, found := n[host]
	if !found {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.1.2.3:53", IsNotFound: true}
	}
	var addrs []netip.Addr
	for _, a := range list {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	return addrs, nil
}

func repeat(n int) string { return string(bytes.Repeat([]byte("x"), n)) }

// wait waits for a signal, not for ever.
func wait[T any](t testing.TB, signal <-chan T) {
	t.Helper()
	select {
	case <-signal:
	case <-time.After(20 * time.Second):
		t.Fatal("the signal did not come")
	}
}
