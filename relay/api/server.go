// Package api is the HTTP API: it lets requests in, checks them, asks the
// parts behind it, and writes every answer in one form. It keeps no state of
// its own. Serve blocks; Shutdown lets it return.
package api

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/fasthttpadaptor"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/access"
	"github.com/omnisales/edgerelay/relay/destination"
	"github.com/omnisales/edgerelay/relay/state"
)

// Meta changes webhooks; a change is in force when it returns.
type Meta interface {
	DeletedWebhook(ordinal uint32) (id string, err error)
	PutWebhook(ctx context.Context, h *relay.Webhook) (*relay.Webhook, error)
	DeleteWebhook(ctx context.Context, store uint32, id string) error
}

// Partitions reads what is committed, and replays.
type Partitions interface {
	Readers() []state.Reader
	Replay(ctx context.Context, webhook uint32, failures []string) (int, error)
}

// Tester sends a test event and logs its attempt.
type Tester interface {
	Test(ctx context.Context, h *relay.Webhook, eventType, eventID string, data []byte) (*relay.Attempt, *relay.Evidence, error)
}

// Registry is where webhooks are looked up.
type Registry interface {
	Find(store uint32, id string) *relay.Webhook
	Webhook(ordinal uint32) *relay.Webhook
	List(store, before uint32, limit int) []*relay.Webhook
}

// Intake accepts events.
type Intake interface {
	Publish(ctx context.Context, store uint32, body []byte, idempotencyKey string) (relay.Receipt, error)
	PublishBatch(ctx context.Context, store uint32, body []byte, ndjson bool) ([]relay.Receipt, error)
}

// Keyring seals secrets and header values.
type Keyring interface {
	Seal(random io.Reader, plain, aad []byte) (relay.Sealed, error)
	Open(s relay.Sealed, aad []byte) ([]byte, error)
}

// Guard lets requests in and says which store they may use.
type Guard interface {
	Check(r access.Request) (store uint32, err error)
}

// Options of a Server; all are required.
type Options struct {
	Meta          Meta
	Partitions    Partitions
	Health        interface{ Ready() error }
	Tester        Tester
	Registry      Registry
	Intake        Intake
	Keyring       Keyring
	Guard         Guard
	Policy        destination.Policy
	RequireHTTPS  bool
	Metrics       prometheus.Gatherer
	Logger        *slog.Logger
	Now           func() time.Time
	Random        io.Reader
	MaxEventBytes int
}

// Server serves the API.
type Server struct {
	opt     Options
	http    *fasthttp.Server
	metrics fasthttp.RequestHandler
	// changing lets one change of a webhook at a time through this node, by
	// ordinal: each reads what the one before wrote.
	changing [64]sync.Mutex
}

const maxWebhookBytes = 256 << 10

// New makes a Server.
func New(opt Options) *Server {
	s := &Server{opt: opt, metrics: fasthttpadaptor.NewFastHTTPHandler(promhttp.HandlerFor(opt.Metrics, promhttp.HandlerOpts{}))}
	s.http = &fasthttp.Server{
		Handler:                      s.handle,
		ErrorHandler:                 s.malformed,
		HeaderReceived:               s.limits,
		Name:                         "edgerelay",
		ReadTimeout:                  30 * time.Second,
		WriteTimeout:                 60 * time.Second,
		IdleTimeout:                  75 * time.Second,
		ReadBufferSize:               16 << 10,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		Logger:                       quiet{},
	}
	return s
}

// quiet: what clients do wrong on the wire is theirs to see, not our log's.
type quiet struct{}

func (quiet) Printf(string, ...any) {}

// Serve answers requests until Shutdown.
func (s *Server) Serve(l net.Listener) error { return s.http.Serve(drainListener{l}) }

// Shutdown stops listening and waits for the requests under way.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.ShutdownWithContext(ctx) }

// limits bounds a body by its route, before it is read.
func (s *Server) limits(h *fasthttp.RequestHeader) fasthttp.RequestConfig {
	c := fasthttp.RequestConfig{MaxRequestBodySize: maxWebhookBytes}
	switch path, _, _ := strings.Cut(string(h.RequestURI()), "?"); path {
	case "/api/events":
		c.MaxRequestBodySize = 2*s.opt.MaxEventBytes + 64<<10 // white space and escapes shrink later
	case "/api/events/batch":
		c.MaxRequestBodySize = 8 << 20
	}
	return c
}

// malformed answers what is no request, or too large a one.
func (s *Server) malformed(ctx *fasthttp.RequestCtx, err error) {
	r := &request{Server: s, RequestCtx: ctx}
	var small *fasthttp.ErrSmallBuffer
	var timeout net.Error
	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		if c, ok := ctx.Conn().(*drainConn); ok {
			c.drain.Store(true)
		}
		r.fail(&relay.Error{Code: relay.CodeTooLarge, Message: "the body is larger than this route takes: send less at once"})
	case errors.As(err, &small):
		r.fail(relay.Invalid("", "the headers are larger than 16 KiB"))
	case errors.As(err, &timeout) && timeout.Timeout():
		r.fail(relay.Invalid("", "the request did not arrive in 30 s"))
	default:
		r.fail(relay.Invalid("", "this is not an HTTP request that can be read"))
	}
}

// request is one request on its way.
type request struct {
	*Server
	*fasthttp.RequestCtx
	store uint32
	id    string // of the path
	sub   string // what follows the id
}

type handler func(r *request) error

// route finds the handlers of a path, by method.
func (s *Server) route(r *request, path string) map[string]handler {
	rest, ok := strings.CutPrefix(path, "/api/")
	if !ok {
		return nil
	}
	parts := strings.SplitN(rest, "/", 3)
	if len(parts) > 1 {
		r.id = parts[1]
	}
	if len(parts) > 2 {
		r.sub = parts[2]
	}
	switch parts[0] {
	case "webhooks":
		return webhookRoutes(len(parts), r.sub)
	case "events":
		return eventRoutes(len(parts), r.id)
	case "event-types":
		return typeRoutes(len(parts))
	}
	return nil
}

func webhookRoutes(parts int, sub string) map[string]handler {
	switch {
	case parts == 1:
		return map[string]handler{"GET": (*request).listWebhooks, "POST": (*request).createWebhook}
	case parts == 2:
		return map[string]handler{"GET": (*request).getWebhook, "PUT": (*request).changeWebhook, "PATCH": (*request).changeWebhook, "DELETE": (*request).deleteWebhook}
	}
	switch sub {
	case "logs":
		return map[string]handler{"GET": (*request).logs}
	case "stats":
		return map[string]handler{"GET": (*request).stats}
	case "test":
		return map[string]handler{"POST": (*request).test}
	case "replay":
		return map[string]handler{"GET": (*request).listFailures, "POST": (*request).replay}
	case "secret/rotate":
		return map[string]handler{"POST": (*request).rotate}
	}
	return nil
}

func eventRoutes(parts int, id string) map[string]handler {
	switch {
	case parts == 1:
		return map[string]handler{"POST": (*request).publish}
	case parts == 2 && id == "batch":
		return map[string]handler{"POST": (*request).publishBatch}
	case parts == 2:
		return map[string]handler{"GET": (*request).getEvent}
	}
	return nil
}

func typeRoutes(parts int) map[string]handler {
	switch parts {
	case 1:
		return map[string]handler{"GET": (*request).listTypes}
	case 2:
		return map[string]handler{"GET": (*request).getType}
	}
	return nil
}

func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	r := &request{Server: s, RequestCtx: ctx}
	defer r.recovered()
	path := string(ctx.Path())
	switch path {
	case "/healthz":
		r.succeed(200, map[string]string{"status": "ok"})
		return
	case "/readyz":
		r.ready()
		return
	}
	var err error
	if r.store, err = s.opt.Guard.Check(r.access()); err != nil {
		r.fail(err)
		return
	}
	if path == "/metrics" {
		s.metrics(ctx)
		return
	}
	methods := s.route(r, path)
	if methods == nil {
		r.fail(relay.NotFound("there is nothing at this path"))
		return
	}
	h := methods[string(ctx.Method())]
	if h == nil {
		r.wrongMethod(methods)
		return
	}
	if err := h(r); err != nil {
		r.fail(err)
	}
}

func (r *request) ready() {
	if err := r.opt.Health.Ready(); err != nil {
		r.fail(&relay.Error{Code: relay.CodeUnavailable, Message: err.Error(), RetryAfter: 1})
		return
	}
	r.succeed(200, map[string]string{"status": "ready"})
}

// access gathers what the guard looks at.
func (r *request) access() access.Request {
	h := &r.Request.Header
	a := access.Request{Host: string(h.Host()), Origin: string(h.Peek("Origin")), SecFetchSite: string(h.Peek("Sec-Fetch-Site")), Authorization: string(h.Peek("Authorization"))}
	for name := range h.All() {
		n := len(name)
		switch {
		case n == 3 && strings.EqualFold(string(name), "Via"), n == 9 && strings.EqualFold(string(name), "Forwarded"), n > 12 && strings.EqualFold(string(name[:12]), "X-Forwarded-"):
			a.Forwarded = true
		}
	}
	return a
}
