// Package webhook signs and verifies deliveries. Receivers use Verifier, the
// gateway the rest. It needs the standard library only, owns no goroutine, and
// all of it may be used by many at once.
//
// Two schemes travel with every delivery. X-Webhook-Signature is the hex
// HMAC-SHA256 of the body, keyed by the whole secret string. webhook-signature
// is Standard Webhooks 1.0 (https://www.standardwebhooks.com): a list of
// "v1," + base64 HMAC-SHA256 over "id.timestamp.body", keyed by the bytes that
// the secret encodes, and, where asked for, "v1a," + base64 Ed25519.
package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"sync"
)

const secretPrefix = "whsec_"

// The bytes that a secret may encode.
const (
	MinSecretBytes = 24
	MaxSecretBytes = 64
)

// Secret is a webhook's shared secret. It prints as "whsec_[redacted]"; only
// Reveal gives it away.
type Secret struct {
	text   string
	byText sync.Pool // of *state keyed by the whole string
	byKey  sync.Pool // of *state keyed by the decoded bytes
}

// state is an HMAC with room for its sum: reused, so that a signature costs no
// allocation.
type state struct {
	mac hash.Hash
	sum [sha256.Size]byte
	num [24]byte
}

// ParseSecret reads "whsec_" + base64 of 24 to 64 bytes. Its errors never
// repeat the secret.
func ParseSecret(s string) (*Secret, error) {
	encoded, ok := strings.CutPrefix(s, secretPrefix)
	if !ok {
		return nil, errors.New(`a secret begins with "whsec_"`)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return nil, errors.New(`a secret is "whsec_" and standard base64 with padding`)
	}
	if len(key) < MinSecretBytes || len(key) > MaxSecretBytes {
		return nil, errors.New(`a secret is "whsec_" and the base64 of 24 to 64 bytes`)
	}
	secret := &Secret{text: s}
	secret.byText.New = func() any { return &state{mac: hmac.New(sha256.New, []byte(s))} }
	secret.byKey.New = func() any { return &state{mac: hmac.New(sha256.New, key)} }
	return secret, nil
}

// NewSecret makes a secret of 32 random bytes.
func NewSecret(random io.Reader) (*Secret, error) {
	var key [32]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return nil, err
	}
	return ParseSecret(secretPrefix + base64.StdEncoding.EncodeToString(key[:]))
}

// Reveal returns the secret itself.
func (s *Secret) Reveal() string { return s.text }

// String does not return the secret.
func (*Secret) String() string { return "whsec_[redacted]" }

// GoString does not return the secret.
func (s *Secret) GoString() string { return s.String() }

// LogValue does not return the secret.
func (s *Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText does not return the secret.
func (s *Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// AppendHex appends the X-Webhook-Signature of a body: 64 hex digits.
func (s *Secret) AppendHex(dst, body []byte) []byte {
	st := s.byText.Get().(*state)
	st.mac.Reset()
	st.mac.Write(body)
	dst = hex.AppendEncode(dst, st.mac.Sum(st.sum[:0]))
	s.byText.Put(st)
	return dst
}

// AppendV1 appends "v1," and the signature of a message at a time in unix
// seconds.
func (s *Secret) AppendV1(dst []byte, id string, timestamp int64, body []byte) []byte {
	st := s.byKey.Get().(*state)
	st.mac.Reset()
	io.WriteString(st.mac, id) // a hash takes everything
	st.mac.Write(append(strconv.AppendInt(append(st.num[:0], '.'), timestamp, 10), '.'))
	st.mac.Write(body)
	dst = append(dst, "v1,"...)
	dst = base64.StdEncoding.AppendEncode(dst, st.mac.Sum(st.sum[:0]))
	s.byKey.Put(st)
	return dst
}
