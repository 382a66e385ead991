package wire_test

import (
	"bytes"
	"net"
	"strconv"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/omnisales/edgerelay/relay/deliver/wire"
)

// lean answers every request with 200 and allocates nothing doing so.
func lean(p *peer) {
	answer, name := []byte(ok200), []byte("Content-Length: ")
	for {
		length := 0
		for {
			line, err := p.r.ReadSlice('\n')
			if err != nil {
				return
			}
			if v, found := bytes.CutPrefix(line, name); found {
				length, _ = strconv.Atoi(string(bytes.TrimSpace(v)))
			}
			if len(line) == 2 {
				break
			}
		}
		if _, err := p.r.Discard(length); err != nil {
			return
		}
		if _, err := p.Write(answer); err != nil {
			return
		}
	}
}

// benchHead is as long as the head of a delivery.
const benchHead = "Content-Type: application/json\r\nUser-Agent: OmniSales-Webhook/1.0\r\n" +
	"X-Webhook-ID: 6f1f6f0e-0000-4000-8000-000000000000\r\nX-Webhook-Timestamp: 1700000000\r\n" +
	"X-Webhook-Signature: 0000000000000000000000000000000000000000000000000000000000000000\r\n" +
	"webhook-id: evt_00000000000000000000000000000000\r\nwebhook-timestamp: 1700000000\r\n" +
	"webhook-signature: v1,AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"

func BenchmarkDo(b *testing.B) {
	s := serve(b, lean)
	c := newClient(b, local())
	req := s.post(b)
	req.Head, req.Body = append(req.Head, benchHead...), []byte(repeat(1000))
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		resp := new(wire.Response)
		for b.Loop() {
			if err := c.Do(req, resp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			resp := new(wire.Response)
			for pb.Next() {
				if err := c.Do(req, resp); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}

// BenchmarkFasthttpHostClient is the same exchange by fasthttp's own client.
func BenchmarkFasthttpHostClient(b *testing.B) {
	s := serve(b, lean)
	c := &fasthttp.HostClient{Addr: s.addr, MaxConns: 512, Dial: func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }}
	defer c.CloseIdleConnections()
	req := fasthttp.AcquireRequest()
	req.SetRequestURI("http://" + s.addr + "/hook?a=1")
	req.Header.SetMethod("POST")
	req.Header.SetUserAgent("OmniSales-Webhook/1.0")
	req.Header.SetContentType("application/json")
	for line := range bytes.SplitSeq([]byte(benchHead), []byte("\r\n")) {
		if k, v, found := bytes.Cut(line, []byte(": ")); found {
			req.Header.SetBytesKV(k, v)
		}
	}
	req.SetBody([]byte(repeat(1000)))
	b.Run("serial", func(b *testing.B) {
		b.ReportAllocs()
		resp := new(fasthttp.Response)
		for b.Loop() {
			if err := c.Do(req, resp); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.SetParallelism(32)
		b.RunParallel(func(pb *testing.PB) {
			resp, own := new(fasthttp.Response), new(fasthttp.Request)
			req.CopyTo(own)
			for pb.Next() {
				if err := c.Do(own, resp); err != nil {
					b.Error(err)
					return
				}
			}
		})
	})
}
