package webhook

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The example of the Standard Webhooks specification.
const (
	specSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	specID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	specTime      = 1614265330
	specBody      = `{"test": 2432232314}`
	specSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func mustParse(t testing.TB, s string) *Secret {
	t.Helper()
	secret, err := ParseSecret(s)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func at(unix int64) func() time.Time { return func() time.Time { return time.Unix(unix, 0) } }

func TestSpecificationsExample(t *testing.T) {
	if got := string(mustParse(t, specSecret).AppendV1(nil, specID, specTime, []byte(specBody))); got != specSignature {
		t.Errorf("got %s", got)
	}
}

func TestHexIsTheGuides(t *testing.T) {
	// echo -n '{"a":1}' | openssl dgst -sha256 -hmac whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw
	const want = "45ec03b2b33403c8043a90de06bedad0827183927115fd7e448ef97eeb13c5be"
	if got := string(mustParse(t, specSecret).AppendHex(nil, []byte(`{"a":1}`))); got != want {
		t.Errorf("got %s", got)
	}
}

func TestSecretsAreChecked(t *testing.T) {
	for _, s := range []string{"", "whsec_", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa", "whsec_c2hvcnQ=", "whsec_" + strings.Repeat("AAAA", 22), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS!"} {
		if _, err := ParseSecret(s); err == nil {
			t.Errorf("%q was taken", s)
		} else if len(s) > 8 && strings.Contains(err.Error(), s[6:]) {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
	s, err := NewSecret(bytes.NewReader(make([]byte, 32)))
	if err != nil {
		t.Fatal(err)
	}
	mustParse(t, s.Reveal())
}

func TestSecretsDoNotPrint(t *testing.T) {
	s := mustParse(t, specSecret)
	k, err := NewPrivateKey(make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "secret", s, "key", k)
	j, err := json.Marshal(map[string]any{"s": s})
	if err != nil {
		t.Fatal(err)
	}
	out := b.String() + string(j) + fmt.Sprintf("%v %+v %#v %s %v %#v", s, s, s, s, k, k)
	if strings.Contains(out, "MfKQ9r8") || !strings.Contains(out, "redacted") {
		t.Error(out)
	}
}

func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestVerify(t *testing.T) {
	a := mustParse(t, specSecret)
	b := mustParse(t, "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	key, _ := NewPrivateKey([]byte("0123456789abcdef0123456789abcdef"))
	public, err := ParsePublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	body, stamp := []byte(specBody), strconv.Itoa(specTime)
	byB := string(b.AppendV1(nil, specID, specTime, body))
	v1a := string(key.AppendV1a(nil, specID, specTime, body))
	std := func(signature string) http.Header {
		return headers("webhook-id", specID, "webhook-timestamp", stamp, "webhook-signature", signature)
	}
	hexA := string(a.AppendHex(nil, body))
	onlyA := Verifier{Secrets: []*Secret{a}, Now: at(specTime + 299)}
	for name, c := range map[string]struct {
		v    Verifier
		h    http.Header
		body string
		want error
	}{
		"v1":               {onlyA, std(specSignature), specBody, nil},
		"one of two":       {onlyA, std(byB + " " + specSignature), specBody, nil},
		"unknown scheme":   {onlyA, std("v9,xx " + specSignature), specBody, nil},
		"other secret":     {onlyA, std(byB), specBody, ErrSignature},
		"changed body":     {onlyA, std(specSignature), specBody + " ", ErrSignature},
		"both secrets":     {Verifier{Secrets: []*Secret{a, b}, Now: at(specTime)}, std(byB), specBody, nil},
		"too old":          {Verifier{Secrets: []*Secret{a}, Now: at(specTime + 301)}, std(specSignature), specBody, ErrTimestamp},
		"from the future":  {Verifier{Secrets: []*Secret{a}, Now: at(specTime - 301)}, std(specSignature), specBody, ErrTimestamp},
		"absurd timestamp": {onlyA, headers("webhook-id", specID, "webhook-timestamp", "-9223372036854775808", "webhook-signature", specSignature), specBody, ErrTimestamp},
		"v1a":              {Verifier{PublicKey: public, Now: at(specTime)}, std(v1a), specBody, nil},
		"v1a, changed":     {Verifier{PublicKey: public, Now: at(specTime)}, std(v1a), specBody + "x", ErrSignature},
		"v1a, no key":      {onlyA, std(v1a), specBody, ErrSignature},
		"hex":              {onlyA, headers("X-Webhook-Signature", hexA, "X-Webhook-Timestamp", stamp), specBody, nil},
		"hex, next":        {Verifier{Secrets: []*Secret{b}, Now: at(specTime)}, headers("X-Webhook-Signature", hexA, "X-Webhook-Signature-Next", string(b.AppendHex(nil, body)), "X-Webhook-Timestamp", stamp), specBody, nil},
		"hex, changed":     {onlyA, headers("X-Webhook-Signature", hexA, "X-Webhook-Timestamp", stamp), "{}", ErrSignature},
		"nothing":          {onlyA, headers(), specBody, ErrNoSignature},
	} {
		if err := c.v.Verify(c.h, []byte(c.body)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func FuzzVerify(f *testing.F) {
	f.Add(specSignature, specID, strconv.Itoa(specTime), []byte(specBody))
	f.Add("v1a,AAAA v1, ,", "", "1e9", []byte{})
	secret := mustParse(f, specSecret)
	f.Fuzz(func(t *testing.T, signature, id, stamp string, body []byte) {
		v := Verifier{Secrets: []*Secret{secret}, PublicKey: make([]byte, 32), Now: at(specTime)}
		h := http.Header{"Webhook-Signature": {signature}, "Webhook-Id": {id}, "Webhook-Timestamp": {stamp}}
		if v.Verify(h, body) == nil && !strings.Contains(signature, string(secret.AppendV1(nil, id, specTime, body))) {
			n, _ := strconv.ParseInt(stamp, 10, 64)
			if !strings.Contains(signature, string(secret.AppendV1(nil, id, n, body))) {
				t.Error("verified without a right signature")
			}
		}
	})
}

func BenchmarkSign(b *testing.B) {
	s, body := mustParse(b, specSecret), bytes.Repeat([]byte("x"), 1024)
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		buf = s.AppendHex(buf[:0], body)
		buf = s.AppendV1(buf, specID, specTime, body)
	}
}
