package wire_test

import (
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
)

// FuzzResponse answers with arbitrary bytes, then closes or stays silent: the
// attempt ends by its deadline, within its limits, and never panics.
func FuzzResponse(f *testing.F) {
	for _, seed := range []string{
		ok200, "", "\r\n", "HTTP/1.1 200", "HTTP/1.1 100 Continue\r\n\r\n" + ok200, "HTTP/1.0 200 OK\r\n\r\nhello",
		"HTTP/1.1 204 No Content\r\n\r\n", "HTTP/1.1 429 Slow\r\nRetry-After: 10\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: 1\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + repeat(20000),
		"HTTP/1.1 200 OK\r\nX: " + repeat(5000) + "\r\n\r\n",
	} {
		f.Add([]byte(seed), true)
		f.Add([]byte(seed), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, ends bool) {
		c := newClient(t, local())
		s := serve(t, func(p *peer) {
			p.request()
			p.say(string(data))
			if !ends {
				p.hold()
			}
		})
		req, resp := s.post(t), new(wire.Response)
		if !ends {
			req.Timeout = 20 * time.Millisecond
		}
		err := c.Do(req, resp)
		if (err == nil) != (resp.Status >= 200 && resp.Status <= 999) {
			t.Fatalf("status %d with error %v", resp.Status, err)
		}
		if len(resp.Body) > wire.MaxBody || len(resp.RetryAfter) > 64 || resp.Duration <= 0 {
			t.Fatalf("body %d, retry after %d, duration %v", len(resp.Body), len(resp.RetryAfter), resp.Duration)
		}
		if err != nil && len(err.Detail) > 200 {
			t.Fatalf("detail of %d bytes", len(err.Detail))
		}
		resp.VisitHeader(func(k, _ []byte) {
			if len(k) == 0 {
				t.Fatal("header without a name")
			}
		})
	})
}
