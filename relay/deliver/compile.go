package deliver

import (
	"fmt"
	"net/netip"
	"sort"
	"strconv"
	"time"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/destination"
	"github.com/omnisales/edgerelay/sdk/webhook"
)

// compiled is a webhook made ready for attempts: the address parsed, the
// secrets opened, the lines of the request that never change written.
type compiled struct {
	from         *relay.Webhook // a webhook is immutable: another pointer is another version
	target       *destination.Target
	whitelist    []netip.Prefix
	head         []byte
	secret, next *webhook.Secret
	key          *webhook.PrivateKey
}

func (e *Engine) compile(h *relay.Webhook) (*compiled, error) {
	c := &compiled{from: h}
	var err error
	if c.target, err = destination.ParseURL(h.URL, false); err != nil {
		return nil, err
	}
	if c.whitelist, err = destination.ParseWhitelist(h.IPWhitelist); err != nil {
		return nil, err
	}
	if c.secret, err = e.openSecret(h, h.Secret); err != nil {
		return nil, err
	}
	if h.NextSecret != nil {
		if c.next, err = e.openSecret(h, *h.NextSecret); err != nil {
			return nil, err
		}
	}
	if h.SigningKey != nil {
		seed, err := e.opt.Keys.Open(*h.SigningKey, e.opt.AAD(h.Store, h.ID, "signing_key"))
		if err != nil {
			return nil, fmt.Errorf("open signing key: %w", err)
		}
		if c.key, err = webhook.NewPrivateKey(seed); err != nil {
			return nil, err
		}
	}
	c.head, err = e.fixedHead(h, c.target.HostHeader)
	return c, err
}

func (e *Engine) openSecret(h *relay.Webhook, sealed relay.Sealed) (*webhook.Secret, error) {
	plain, err := e.opt.Keys.Open(sealed, e.opt.AAD(h.Store, h.ID, "secret"))
	if err != nil {
		return nil, fmt.Errorf("open secret: %w", err)
	}
	return webhook.ParseSecret(string(plain))
}

func (e *Engine) fixedHead(h *relay.Webhook, host string) ([]byte, error) {
	b := line(nil, "Host", host)
	b = line(b, "User-Agent", "OmniSales-Webhook/1.0")
	b = line(b, "Content-Type", "application/json")
	b = line(b, "X-Webhook-ID", h.ID)
	names := make([]string, 0, len(h.Headers))
	for name := range h.Headers {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		value, err := e.opt.Keys.Open(h.Headers[name], e.opt.AAD(h.Store, h.ID, "header:"+name))
		if err != nil {
			return nil, fmt.Errorf("open header %s: %w", name, err)
		}
		b = line(b, name, string(value))
	}
	return b, nil
}

func line(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

func numberLine(b []byte, name string, n int64) []byte {
	b = append(append(b, name...), ": "...)
	return append(strconv.AppendInt(b, n, 10), "\r\n"...)
}

// appendHead writes the request's header lines, signatures included: both
// schemes by the secret, in a rotation's grace by the next one too.
func (c *compiled) appendHead(b []byte, j *job, test bool, now time.Time) []byte {
	at := now.Unix()
	b = append(b, c.head...)
	b = numberLine(b, "X-Webhook-Timestamp", at)
	secret, next := c.secret, c.next
	if next != nil && at >= c.from.GraceEnds {
		secret, next = next, nil
	}
	b = append(b, "X-Webhook-Signature: "...)
	b = append(secret.AppendHex(b, j.payload), "\r\n"...)
	if next != nil {
		b = append(b, "X-Webhook-Signature-Next: "...)
		b = append(next.AppendHex(b, j.payload), "\r\n"...)
	}
	b = line(b, "webhook-id", j.id)
	b = numberLine(b, "webhook-timestamp", at)
	b = append(b, "webhook-signature: "...)
	b = secret.AppendV1(b, j.id, at, j.payload)
	if next != nil {
		b = next.AppendV1(append(b, ' '), j.id, at, j.payload)
	}
	if c.key != nil {
		b = c.key.AppendV1a(append(b, ' '), j.id, at, j.payload)
	}
	b = append(b, "\r\n"...)
	b = line(b, "X-Webhook-Event", j.eventType)
	b = line(b, "X-Webhook-Delivery", relay.DeliveryID(j.store, j.orderingKey, j.id, c.from.Ordinal))
	b = numberLine(b, "X-Webhook-Attempt", int64(j.attempts+1))
	if test {
		b = line(b, "X-Webhook-Test", "true")
	}
	return b
}
