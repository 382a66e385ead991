package retry

import (
	"testing"
	"time"

	"github.com/omnisales/edgerelay/relay"
)

func TestDelayIsTheGuidesSchedule(t *testing.T) {
	want := []time.Duration{1, 2, 4, 8, 16, 32, 60, 60}
	for i, w := range want {
		if got := Delay(relay.DefaultRetry, i+1, 0.5); got != w*time.Second {
			t.Errorf("after attempt %d: %v, want %v", i+1, got, w*time.Second)
		}
	}
}

func TestDelayStaysInItsBounds(t *testing.T) {
	r := relay.Retry{InitialDelayMS: 1000, MaxDelayMS: 86_400_000, Multiplier: 10, Jitter: 0.25}
	if got := Delay(r, 50, 0); got != 18*time.Hour {
		t.Errorf("after attempt 50: %v, want the maximum less its jitter", got)
	}
	if low, high := Delay(r, 1, 0), Delay(r, 1, 0.999999); low != 750*time.Millisecond || high <= 1240*time.Millisecond || high > 1250*time.Millisecond {
		t.Errorf("jitter spans %v to %v", low, high)
	}
	if got := Delay(relay.Retry{Multiplier: 2}, 3, 0.9); got != 0 {
		t.Errorf("no delay became %v", got)
	}
}

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(2025, 1, 16, 10, 30, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0": 0, "120": 2 * time.Minute, " 7 ": 7 * time.Second, "999999": MaxRetryAfter, "99999999999999999999": MaxRetryAfter,
		"Thu, 16 Jan 2025 10:31:00 GMT": time.Minute, "Thu, 16 Jan 2025 10:29:00 GMT": 0, "Thu, 16 Jan 2035 10:29:00 GMT": MaxRetryAfter,
	} {
		if got, ok := ParseRetryAfter(value, now); !ok || got != want {
			t.Errorf("%q: %v %v, want %v", value, got, ok, want)
		}
	}
	for _, value := range []string{"", "soon", "-1", "1.5", "1e3"} {
		if _, ok := ParseRetryAfter(value, now); ok {
			t.Errorf("%q was taken", value)
		}
	}
}
