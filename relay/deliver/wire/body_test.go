package wire_test

import (
	"fmt"
	"strings"
	"testing"
)

func TestBodies(t *testing.T) {
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	sized := func(n int) string { return fmt.Sprintf("Content-Length: %d\r\n\r\n%s", n, repeat(n)) }
	chunks := func(n int) string { return fmt.Sprintf("%x\r\n%s\r\n", n, repeat(n)) }
	for name, tc := range map[string]struct {
		status    string // "HTTP/1.1 200 OK" where empty
		rest      string // header lines, empty line, body
		end       bool   // the server closes after it
		size      int    // of the body kept
		truncated bool
		reused    bool // the connection serves the next request
	}{
		"sized":               {rest: sized(5), size: 5, reused: true},
		"empty":               {rest: sized(0), reused: true},
		"sized limit":         {rest: sized(16 << 10), size: 16 << 10, reused: true},
		"sized, drained":      {rest: sized(32 << 10), size: 16 << 10, truncated: true, reused: true},
		"sized, too long":     {rest: sized(32<<10 + 1), size: 16 << 10, truncated: true},
		"sized, cut":          {rest: "Content-Length: 9\r\n\r\nabc", end: true, size: 3, truncated: true},
		"close asked":         {rest: "Connection: close\r\n" + sized(5), size: 5},
		"no body":             {status: "HTTP/1.1 204 No Content", rest: "\r\n", reused: true},
		"not modified":        {status: "HTTP/1.1 304 Not Modified", rest: "Content-Length: 7\r\n\r\n", reused: true},
		"until close":         {rest: "\r\nhello", end: true, size: 5},
		"until close, long":   {rest: "\r\n" + repeat(17<<10), end: true, size: 16 << 10, truncated: true},
		"until close, limit":  {rest: "\r\n" + repeat(16<<10), end: true, size: 16 << 10},
		"http/1.0":            {status: "HTTP/1.0 200 OK", rest: "Connection: keep-alive\r\n" + sized(5), size: 5},
		"chunked":             {rest: chunked + chunks(3) + chunks(0xAb) + "0\r\n\r\n", size: 3 + 0xab, reused: true},
		"chunked, extras":     {rest: chunked + "3 ;a=b\r\nabc\r\n0;x\r\nX-Sum: 1\r\n\r\n", size: 3, reused: true},
		"chunked, limit":      {rest: chunked + chunks(16<<10) + "0\r\n\r\n", size: 16 << 10, reused: true},
		"chunked, too long":   {rest: chunked + chunks(16<<10) + chunks(1) + "0\r\n\r\n", size: 16 << 10, truncated: true},
		"chunked, huge size":  {rest: chunked + "fffffffffffffff0\r\nab", truncated: true},
		"chunked, bad size":   {rest: chunked + chunks(3) + "zz\r\n", size: 3, truncated: true},
		"chunked, no size":    {rest: chunked + "\r\n", truncated: true},
		"chunked, bare LF":    {rest: chunked + "3\nabc\r\n0\r\n\r\n", truncated: true},
		"chunked, wrong end":  {rest: chunked + "3\r\nabcd\r\n0\r\n\r\n", size: 3, truncated: true},
		"chunked, cut":        {rest: chunked + "8\r\nabc", end: true, size: 3, truncated: true},
		"chunked, long line":  {rest: chunked + "3;" + repeat(5<<10) + "\r\nabc\r\n", truncated: true},
		"chunked, trailers":   {rest: chunked + "0\r\n" + strings.Repeat("X: "+repeat(1000)+"\r\n", 70), truncated: true},
		"chunked and a size":  {rest: "Content-Length: 99\r\n" + chunked + chunks(3) + "0\r\n\r\n", size: 3, reused: true},
		"bytes after the end": {rest: sized(5) + "HTTP/1.1 500 No\r\n\r\n", size: 5},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.status == "" {
				tc.status = "HTTP/1.1 200 OK"
			}
			s := serve(t, func(p *peer) {
				for {
					if _, _, ok := p.request(); !ok {
						return
					}
					p.say(tc.status + "\r\n" + tc.rest)
					if tc.end {
						return
					}
				}
			})
			c := newClient(t, local())
			resp := do(t, c, s.post(t))
			if len(resp.Body) != tc.size || resp.Truncated != tc.truncated {
				t.Errorf("%d bytes, truncated=%v", len(resp.Body), resp.Truncated)
			}
			if again := do(t, c, s.post(t)); again.Reused != tc.reused {
				t.Errorf("reused=%v", again.Reused)
			}
		})
	}
}
