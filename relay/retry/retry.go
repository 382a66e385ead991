// Package retry computes when a failed delivery is tried again. It is pure:
// the clock and the randomness are arguments.
package retry

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/omnisales/edgerelay/relay"
)

// MaxRetryAfter is the longest wait that a receiver can ask for.
const MaxRetryAfter = 24 * time.Hour

// Delay is the wait after the attempt (1..) that failed: InitialDelayMS x
// Multiplier^(attempt-1), at most MaxDelayMS, varied by ±Jitter of itself as
// u (0 <= u < 1) says.
func Delay(r relay.Retry, attempt int, u float64) time.Duration {
	ms := float64(r.InitialDelayMS) * math.Pow(r.Multiplier, float64(attempt-1))
	ms = math.Min(ms, float64(r.MaxDelayMS)) // Pow's +Inf included
	ms *= 1 + r.Jitter*(2*u-1)
	return time.Duration(math.Max(ms, 0) * float64(time.Millisecond))
}

// ParseRetryAfter reads a Retry-After header (RFC 9110, 10.2.3): seconds or an
// HTTP date. The wait is from 0 to MaxRetryAfter; ok is false for anything else.
func ParseRetryAfter(value string, now time.Time) (wait time.Duration, ok bool) {
	value = strings.TrimSpace(value)
	if value == "" {
		return 0, false
	}
	if seconds, err := strconv.ParseUint(value, 10, 64); err == nil {
		return time.Duration(min(seconds, uint64(MaxRetryAfter/time.Second))) * time.Second, true
	}
	if strings.Trim(value, "0123456789") == "" { // digits, more than fit
		return MaxRetryAfter, true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return min(max(at.Sub(now), 0), MaxRetryAfter), true
}
