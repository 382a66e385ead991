package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/omnisales/edgerelay/relay/catalogue"
	"github.com/omnisales/edgerelay/sdk/webhook"
)

// benchLoadCmd is the load of bench, a process of its own. Closed loop: each
// connection publishes again when its 202 has come. Open loop (--rate): events
// are due at fixed times, and lateness counts, whoever causes it.
type benchLoadCmd struct {
	Target string
	Bare   string  `help:"The secret to sign with: the target is a receiver."`
	Events int     `required:""`
	Batch  int     `default:"1"`
	Conns  int     `default:"64"`
	Rate   float64 `help:"Events a second; 0 is the closed loop."`
}

// benchSent is what the load did; it prints it as JSON.
type benchSent struct {
	StartUS  int64 // unix microseconds of the first request
	Seconds  float64
	Refused  int64 // 429 and 503: sent again
	P50MS    float64
	P99MS    float64 // of the answers, 202 or the receiver's
	Accepted int64
}

type load struct {
	cmd     *benchLoadCmd
	client  *fasthttp.HostClient
	path    string
	data    []byte
	secret  *webhook.Secret
	next    atomic.Int64
	start   time.Time
	refused atomic.Int64
	took    [][]uint32 // microseconds, by connection
}

// Run sends everything once, and tells how it went.
func (c *benchLoadCmd) Run(ctx context.Context) error {
	u, err := url.Parse(c.Target)
	if err != nil {
		return err
	}
	sample, _ := catalogue.Lookup("order.created")
	l := &load{
		cmd: c, client: &fasthttp.HostClient{Addr: u.Host, MaxConns: c.Conns, ReadTimeout: time.Minute}, path: c.Target,
		data: sample.Sample, took: make([][]uint32, c.Conns), start: time.Now(),
	}
	if c.Bare != "" {
		if l.secret, err = webhook.ParseSecret(c.Bare); err != nil {
			return err
		}
	}
	failed := make(chan error, c.Conns)
	var working sync.WaitGroup
	for i := range c.Conns {
		working.Go(func() {
			if err := l.work(ctx, i); err != nil {
				failed <- err
			}
		})
	}
	working.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	all := slices.Concat(l.took...)
	slices.Sort(all)
	out := benchSent{StartUS: l.start.UnixMicro(), Seconds: time.Since(l.start).Seconds(), Refused: l.refused.Load(), Accepted: int64(c.Events)}
	if n := len(all); n > 0 {
		out.P50MS, out.P99MS = float64(all[n/2])/1000, float64(all[n*99/100])/1000
	}
	return json.NewEncoder(os.Stdout).Encode(out)
}

func (l *load) work(ctx context.Context, conn int) error {
	req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
	req.SetRequestURI(l.path)
	req.Header.SetMethod("POST")
	req.Header.SetContentType("application/json")
	for ctx.Err() == nil {
		first := int(l.next.Add(int64(l.cmd.Batch))) - l.cmd.Batch
		if first >= l.cmd.Events {
			return nil
		}
		count := min(l.cmd.Batch, l.cmd.Events-first)
		due := l.due(first + count - 1)
		time.Sleep(time.Until(due))
		l.fill(req, first, count, due)
		for {
			before := time.Now()
			if err := l.client.Do(req, resp); err != nil {
				return err
			}
			code := resp.StatusCode()
			if code == 429 || code == 503 {
				l.refused.Add(1)
				time.Sleep(10 * time.Millisecond)
				continue
			}
			if code >= 300 || bytes.Contains(resp.Body(), []byte(`"error"`)) {
				return fmt.Errorf("%d: %s", code, resp.Body())
			}
			l.took[conn] = append(l.took[conn], uint32(time.Since(before).Microseconds()))
			break
		}
	}
	return ctx.Err()
}

// due is when an event is to be sent: now in a closed loop, else by the rate.
func (l *load) due(seq int) time.Time {
	if l.cmd.Rate == 0 {
		return time.Now()
	}
	return l.start.Add(time.Duration(float64(seq) / l.cmd.Rate * float64(time.Second)))
}

// fill writes the request of count events from first on, all due together.
func (l *load) fill(req *fasthttp.Request, first, count int, due time.Time) {
	if l.secret != nil {
		l.fillBare(req, first)
		return
	}
	var b []byte
	for i := range count {
		b = append(b, "[,"[min(i, 1)])
		b = append(b, `{"event":"order.created","id":"`...)
		b = appendBenchID(b, first+i, due.UnixMicro())
		b = append(append(append(b, `","data":`...), l.data...), '}')
	}
	if l.cmd.Batch == 1 {
		req.SetBody(b[1:])
		return
	}
	req.SetBody(append(b, ']'))
}

// fillBare writes what a delivery looks like: headers, body, signatures.
func (l *load) fillBare(req *fasthttp.Request, seq int) {
	now := time.Now()
	id := string(appendBenchID(nil, seq, now.UnixMicro()))
	b := fmt.Appendf(nil, `{"id":"%s","event":"order.created","created_at":"%s","data":%s}`, id, now.UTC().Format("2006-01-02T15:04:05Z"), l.data)
	req.SetBody(b)
	h := &req.Header
	h.SetUserAgent("OmniSales-Webhook/1.0")
	h.Set("X-Webhook-ID", "550e8400-e29b-41d4-a716-446655440000")
	h.Set("X-Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	h.SetBytesV("X-Webhook-Signature", l.secret.AppendHex(nil, b))
	h.Set("webhook-id", id)
	h.Set("webhook-timestamp", strconv.FormatInt(now.Unix(), 10))
	h.SetBytesV("webhook-signature", l.secret.AppendV1(nil, id, now.Unix(), b))
	h.Set("X-Webhook-Event", "order.created")
	h.Set("X-Webhook-Delivery", "dlv_0123456789abcdef")
	h.Set("X-Webhook-Attempt", "1")
}
