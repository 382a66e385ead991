package webhook

import (
	"crypto/ed25519"
	"crypto/hmac"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// What a delivery is refused for. Answer 401 and do not process it.
var (
	ErrNoSignature = errors.New("the request carries no signature")
	ErrSignature   = errors.New("no signature of the request matches")
	ErrTimestamp   = errors.New("the timestamp is missing or too far from now")
)

// DefaultTolerance is how far a timestamp may be from now.
const DefaultTolerance = 5 * time.Minute

// Verifier checks that a request came from the gateway. Secrets holds the
// webhook's secret, in a rotation both; PublicKey is for v1a.
type Verifier struct {
	Secrets   []*Secret
	PublicKey ed25519.PublicKey
	Tolerance time.Duration    // DefaultTolerance if 0
	Now       func() time.Time // time.Now if nil
}

// Verify checks a request's headers and its body as it came, before any
// parsing. It prefers the Standard Webhooks headers, and falls back to
// X-Webhook-Signature where they are absent.
func (v *Verifier) Verify(h http.Header, body []byte) error {
	if list := h.Get("webhook-signature"); list != "" {
		at, err := v.timestamp(h.Get("webhook-timestamp"))
		if err != nil {
			return err
		}
		return v.standard(list, h.Get("webhook-id"), at, body)
	}
	signatures := []string{h.Get("X-Webhook-Signature"), h.Get("X-Webhook-Signature-Next")}
	if signatures[0] == "" {
		return ErrNoSignature
	}
	if _, err := v.timestamp(h.Get("X-Webhook-Timestamp")); err != nil {
		return err
	}
	for _, s := range v.Secrets {
		want := s.AppendHex(nil, body)
		for _, got := range signatures {
			if hmac.Equal(want, []byte(got)) {
				return nil
			}
		}
	}
	return ErrSignature
}

func (v *Verifier) timestamp(value string) (int64, error) {
	at, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, ErrTimestamp
	}
	now, tolerance := time.Now, v.Tolerance
	if v.Now != nil {
		now = v.Now
	}
	if tolerance == 0 {
		tolerance = DefaultTolerance
	}
	// Compared in seconds, since the difference of any two fits no Duration.
	if n, t := now().Unix(), int64(tolerance/time.Second); at < n-t || at > n+t {
		return 0, ErrTimestamp
	}
	return at, nil
}

func (v *Verifier) standard(list, id string, at int64, body []byte) error {
	for _, signature := range strings.Fields(list) {
		switch scheme, encoded, _ := strings.Cut(signature, ","); scheme {
		case "v1":
			for _, s := range v.Secrets {
				if hmac.Equal(s.AppendV1(nil, id, at, body), []byte(signature)) {
					return nil
				}
			}
		case "v1a":
			raw, err := base64.StdEncoding.DecodeString(encoded)
			if err == nil && len(v.PublicKey) == ed25519.PublicKeySize && ed25519.Verify(v.PublicKey, message(id, at, body), raw) {
				return nil
			}
		}
	}
	return ErrSignature
}
