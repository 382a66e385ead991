package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/omnisales/edgerelay/sdk/webhook"
)

// benchReceiverCmd is the receiver of bench: a process that checks both
// signatures of every request and knows which events came, how often and how
// late. Requests to /bare do the same work but for the accounts.
type benchReceiverCmd struct{}

// benchPhase is what the receiver is to expect: POST /phase begins one.
type benchPhase struct {
	Secrets []string
	Events  int
}

// benchSeen is what came in a phase: GET /phase tells.
type benchSeen struct {
	Received int64 // first arrivals, over all webhooks
	Doubled  int64
	Forged   int64 // wrongly signed, or malformed
	LastUS   int64 // unix microseconds of the last first arrival
	P50MS    float64
	P99MS    float64
}

type benchReceiver struct {
	phase atomic.Pointer[phaseState]
}

type phaseState struct {
	secrets []*webhook.Secret
	events  int
	seen    [][]uint32 // bitmaps of events, by webhook
	late    []uint32   // microseconds, in order of arrival

	received, doubled, forged, last atomic.Int64
}

// Run serves until ctx ends.
func (benchReceiverCmd) Run(ctx context.Context) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &benchReceiver{}
	r.phase.Store(&phaseState{})
	server := &fasthttp.Server{Handler: r.serve, NoDefaultServerHeader: true, NoDefaultDate: true}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	fmt.Fprintf(os.Stderr, "{\"api\":\"http://%s\"}\n", l.Addr())
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return server.Shutdown()
	}
}

func (r *benchReceiver) serve(c *fasthttp.RequestCtx) {
	p := r.phase.Load()
	path := c.Path()
	if hook, ok := bytes.CutPrefix(path, []byte("/h/")); ok {
		n, err := strconv.Atoi(string(hook))
		if err != nil || n >= len(p.secrets) || !p.signed(n, &c.Request) {
			p.forged.Add(1)
			c.SetStatusCode(fasthttp.StatusUnauthorized)
			return
		}
		p.count(n, string(c.Request.Header.Peek("webhook-id")))
		return
	}
	switch {
	case string(path) == "/bare":
		if len(p.secrets) == 0 || !p.signed(0, &c.Request) {
			c.SetStatusCode(fasthttp.StatusUnauthorized)
		}
	case c.IsPost():
		if err := r.begin(c.PostBody()); err != nil {
			c.Error(err.Error(), fasthttp.StatusBadRequest)
		}
	default:
		_ = json.NewEncoder(c).Encode(p.tell()) // into memory
	}
}

func (r *benchReceiver) begin(body []byte) error {
	var phase benchPhase
	if err := json.Unmarshal(body, &phase); err != nil {
		return err
	}
	p := &phaseState{events: phase.Events, late: make([]uint32, phase.Events*len(phase.Secrets))}
	for _, text := range phase.Secrets {
		s, err := webhook.ParseSecret(text)
		if err != nil {
			return err
		}
		p.secrets = append(p.secrets, s)
		p.seen = append(p.seen, make([]uint32, (phase.Events+31)/32))
	}
	r.phase.Store(p)
	return nil
}

// signed checks both schemes.
func (p *phaseState) signed(n int, req *fasthttp.Request) bool {
	h, body, s := &req.Header, req.Body(), p.secrets[n]
	at, err := strconv.ParseInt(string(h.Peek("webhook-timestamp")), 10, 64)
	if err != nil {
		return false
	}
	var hex, v1 [96]byte
	return bytes.Equal(s.AppendHex(hex[:0], body), h.Peek("X-Webhook-Signature")) &&
		bytes.Equal(s.AppendV1(v1[:0], string(h.Peek("webhook-id")), at, body), h.Peek("webhook-signature"))
}

// count books an event's arrival at a webhook.
func (p *phaseState) count(n int, id string) {
	seq, sent, err := parseBenchID(id)
	if err != nil || seq >= p.events {
		p.forged.Add(1)
		return
	}
	bit := uint32(1) << (seq % 32)
	if atomic.OrUint32(&p.seen[n][seq/32], bit)&bit != 0 {
		p.doubled.Add(1)
		return
	}
	now := time.Now().UnixMicro()
	i := p.received.Add(1) - 1
	atomic.StoreUint32(&p.late[i], uint32(min(max(now-sent, 0), 1<<32-1)))
	p.last.Store(now)
}

func (p *phaseState) tell() benchSeen {
	n := p.received.Load()
	out := benchSeen{Received: n, Doubled: p.doubled.Load(), Forged: p.forged.Load(), LastUS: p.last.Load()}
	if int(n) == len(p.late) && n > 0 { // sorted once, when all is here
		late := slices.Clone(p.late)
		slices.Sort(late)
		out.P50MS, out.P99MS = float64(late[n/2])/1000, float64(late[n*99/100])/1000
	}
	return out
}

// appendBenchID makes an event's id, which tells its number and when it was
// to be sent, in unix microseconds.
func appendBenchID(dst []byte, seq int, at int64) []byte {
	dst = append(dst, "bench-"...)
	dst = strconv.AppendInt(dst, int64(seq), 10)
	return strconv.AppendInt(append(dst, '-'), at, 10)
}

func parseBenchID(id string) (seq int, at int64, err error) {
	rest, ok := bytes.CutPrefix([]byte(id), []byte("bench-"))
	number, stamp, both := bytes.Cut(rest, []byte("-"))
	if !ok || !both {
		return 0, 0, errors.New("not an id of bench")
	}
	if seq, err = strconv.Atoi(string(number)); err != nil {
		return 0, 0, err
	}
	at, err = strconv.ParseInt(string(stamp), 10, 64)
	return seq, at, err
}
