package destination

import (
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"github.com/omnisales/edgerelay/relay"
)

// MaxURL is the longest URL of a webhook, in bytes.
const MaxURL = 2048

// Target is a URL taken apart for the dialer and the request.
type Target struct {
	Scheme     string // http or https
	Host       string // lower case, without brackets and port
	Port       string
	Addr       string // host:port to dial
	HostHeader string // without the scheme's usual port
	RequestURI string // path and query, percent-encoded, never empty
	TLS        bool
	IP         netip.Addr // valid where the host is an address
}

func invalid(message string) error { return relay.Invalid("url", message) }

// ParseURL takes a webhook's URL apart, or says what to mend. It resolves
// nothing. Its errors are *relay.Error of field "url".
func ParseURL(raw string, requireHTTPS bool) (*Target, error) {
	if raw == "" {
		return nil, invalid("is required: give the http or https URL that receives the events")
	}
	if len(raw) > MaxURL {
		return nil, invalid("is longer than 2048 bytes")
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c == 0x7f || c == '\\' {
			return nil, invalid("holds a space, a control character or a backslash: percent-encode it")
		}
	}
	u, err := url.Parse(raw)
	if err != nil {
		return nil, invalid("is not a URL: give one such as https://your-app.com/webhooks/omni")
	}
	t := &Target{Scheme: strings.ToLower(u.Scheme)}
	switch {
	case t.Scheme != "http" && t.Scheme != "https" || u.Opaque != "":
		return nil, invalid("must begin with http:// or https://")
	case requireHTTPS && t.Scheme != "https":
		return nil, invalid("must begin with https:// on this server")
	case u.User != nil:
		return nil, invalid("must not hold a user or password: use the webhook's headers")
	case strings.Contains(raw, "#"):
		return nil, invalid("must not hold a fragment (#…): it is never sent")
	}
	t.TLS = t.Scheme == "https"
	if err := t.setHost(u); err != nil {
		return nil, err
	}
	t.RequestURI = requestURI(u)
	return t, nil
}

func (t *Target) setHost(u *url.URL) error {
	t.Host = strings.ToLower(u.Hostname())
	usual := "80"
	if t.TLS {
		usual = "443"
	}
	if t.Port = u.Port(); t.Port == "" {
		if strings.HasSuffix(u.Host, ":") {
			return invalid("has a colon but no port")
		}
		t.Port = usual
	}
	if n, err := strconv.Atoi(t.Port); err != nil || n < 1 || n > 65535 {
		return invalid("has a port that is not from 1 to 65535")
	} else {
		t.Port = strconv.Itoa(n)
	}
	if ip, err := netip.ParseAddr(t.Host); err == nil {
		if ip.Zone() != "" {
			return invalid("has an address with a zone, which means nothing elsewhere")
		}
		t.IP, t.Host = ip, ip.String()
	} else if err := checkName(t.Host); err != nil {
		return err
	}
	t.Addr = net.JoinHostPort(t.Host, t.Port)
	t.HostHeader = t.Addr
	if t.Port == usual {
		t.HostHeader = strings.TrimSuffix(t.Addr, ":"+t.Port)
	}
	return nil
}

// checkName accepts host names (RFC 1123, underscores besides). A name whose
// last label is a number is an IPv4 address in some odd notation, which
// resolvers read each in their own way.
func checkName(host string) error {
	if host == "" {
		return invalid("has no host")
	}
	if len(host) > 253 {
		return invalid("has a host longer than 253 bytes")
	}
	labels := strings.Split(host, ".")
	for _, l := range labels {
		if l == "" || len(l) > 63 {
			return invalid("has a host with an empty label, a trailing dot or one longer than 63 bytes")
		}
		for i := range len(l) {
			if c := l[i]; c >= 0x80 {
				return invalid("has a host that is not ASCII: write it in punycode (xn--…)")
			} else if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
				return invalid("has a host with a character that no host name has")
			}
		}
	}
	if last := labels[len(labels)-1]; numeric(last) {
		return invalid("has an IPv4 address in an odd notation: write it as four decimal numbers")
	}
	return nil
}

func numeric(label string) bool {
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}

// requestURI keeps the path as it was encoded; what no request line may hold
// is percent-encoded.
func requestURI(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery == "" && !u.ForceQuery {
		return path
	}
	var b strings.Builder
	b.WriteString(path)
	b.WriteByte('?')
	for i := range len(u.RawQuery) {
		if c := u.RawQuery[i]; c >= 0x80 || c == '"' || c == '<' || c == '>' {
			b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
