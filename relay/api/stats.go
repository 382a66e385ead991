package api

import (
	"strconv"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/state"
)

type statsShape struct {
	Window       string                `json:"window"`
	Since        any                   `json:"since"`
	Deliveries   int64                 `json:"deliveries"`
	Succeeded    int64                 `json:"succeeded"`
	Failed       int64                 `json:"failed"`
	Pending      int64                 `json:"pending"`
	Filtered     int64                 `json:"filtered"`
	Cancelled    int64                 `json:"cancelled"`
	Attempts     int64                 `json:"attempts"`
	SuccessRate  *float64              `json:"success_rate"` // of what ended; null before anything did
	Average      *float64              `json:"average_response_time_ms"`
	P50          *float64              `json:"p50"`
	P95          *float64              `json:"p95"`
	P99          *float64              `json:"p99"`
	ByEvent      map[string]*typeStats `json:"by_event"`
	ByStatusCode map[string]int64      `json:"by_status_code"`
	Series       []point               `json:"series"`
}

type typeStats struct {
	Deliveries int64 `json:"deliveries"`
	Succeeded  int64 `json:"succeeded"`
	Failed     int64 `json:"failed"`
	Filtered   int64 `json:"filtered"`
}

type point struct {
	At         any      `json:"at"`
	Deliveries int64    `json:"deliveries"`
	Succeeded  int64    `json:"succeeded"`
	Failed     int64    `json:"failed"`
	Attempts   int64    `json:"attempts"`
	Average    *float64 `json:"average_response_time_ms"`
}

// windows are the spans, and the length of a point of their series.
var windows = map[string]struct{ span, step time.Duration }{
	"1h": {time.Hour, 5 * time.Minute}, "24h": {24 * time.Hour, time.Hour}, "7d": {7 * 24 * time.Hour, 6 * time.Hour},
}

func (r *request) stats() error {
	h, err := r.find()
	if err != nil {
		return err
	}
	name := string(r.QueryArgs().Peek("window"))
	if name == "" {
		name = "24h"
	}
	w, ok := windows[name]
	if !ok {
		return relay.Invalid("window", "must be 1h, 24h or 7d")
	}
	now := r.opt.Now()
	from := now.Add(-w.span).Truncate(state.SlotMS * time.Millisecond)
	total := state.Counters{}
	points := map[int64]state.Counters{}
	for _, reader := range r.opt.Partitions.Readers() {
		slots, err := state.Stats(reader, h.Ordinal, from.UnixMilli(), now.UnixMilli())
		if err != nil {
			return err
		}
		for _, slot := range slots {
			total.Add(slot.Counters)
			step := slot.Start - slot.Start%w.step.Milliseconds()
			if points[step] == nil {
				points[step] = state.Counters{}
			}
			points[step].Add(slot.Counters)
		}
	}
	s := summary(total)
	s.Window, s.Since = name, at(from.UnixMilli())
	for step := from.Truncate(w.step); !step.After(now); step = step.Add(w.step) {
		s.Series = append(s.Series, pointOf(step.UnixMilli(), points[step.UnixMilli()]))
	}
	r.succeed(200, s)
	return nil
}

func summary(c state.Counters) *statsShape {
	s := &statsShape{Deliveries: c[state.Counter{Kind: state.CountCreated}], Succeeded: c.Count(relay.Succeeded), Failed: c.Count(relay.Dead), Filtered: c.Count(relay.Filtered),
		Cancelled: c.Count(relay.Cancelled), Attempts: c[state.Counter{Kind: state.CountAttempts}], ByEvent: map[string]*typeStats{}, ByStatusCode: map[string]int64{}}
	s.Pending = max(0, s.Deliveries-s.Succeeded-s.Failed-s.Filtered-s.Cancelled)
	if ended := s.Succeeded + s.Failed; ended > 0 {
		rate := float64(s.Succeeded) / float64(ended)
		s.SuccessRate = &rate
	}
	s.Average = average(c)
	if s.Attempts > 0 {
		p50, p95, p99 := c.Quantile(0.50), c.Quantile(0.95), c.Quantile(0.99)
		s.P50, s.P95, s.P99 = &p50, &p95, &p99
	}
	for k, n := range c {
		switch {
		case k.Kind == state.CountCode && k.Arg > 0:
			s.ByStatusCode[strconv.Itoa(int(k.Arg))] = n
		case k.Kind == state.CountType:
			s.typed(k.Type).Deliveries = n
		case k.Kind == state.CountTypeEnd:
			switch relay.State(k.Arg) {
			case relay.Succeeded:
				s.typed(k.Type).Succeeded = n
			case relay.Dead:
				s.typed(k.Type).Failed = n
			case relay.Filtered:
				s.typed(k.Type).Filtered = n
			}
		}
	}
	return s
}

func (s *statsShape) typed(name string) *typeStats {
	if s.ByEvent[name] == nil {
		s.ByEvent[name] = &typeStats{}
	}
	return s.ByEvent[name]
}

func average(c state.Counters) *float64 {
	n := c[state.Counter{Kind: state.CountAttempts}]
	if n == 0 {
		return nil
	}
	mean := ms(c[state.Counter{Kind: state.CountDuration}]) / float64(n)
	return &mean
}

func pointOf(step int64, c state.Counters) point {
	return point{At: at(step), Deliveries: c[state.Counter{Kind: state.CountCreated}], Succeeded: c.Count(relay.Succeeded), Failed: c.Count(relay.Dead),
		Attempts: c[state.Counter{Kind: state.CountAttempts}], Average: average(c)}
}
