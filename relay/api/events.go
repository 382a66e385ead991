package api

import (
	"context"
	"encoding/json"

	"github.com/omnisales/edgerelay/relay"
	"github.com/omnisales/edgerelay/relay/catalogue"
	"github.com/omnisales/edgerelay/relay/state"
)

type receiptShape struct {
	ID        string          `json:"id,omitempty"`
	Event     string          `json:"event,omitempty"`
	CreatedAt string          `json:"created_at,omitempty"`
	Matched   *int            `json:"matched,omitempty"`
	Duplicate *bool           `json:"duplicate,omitempty"`
	Warnings  []relay.Warning `json:"warnings,omitempty"` // in a batch
	Error     *errorShape     `json:"error,omitempty"`
}

func shapeReceipt(c *relay.Receipt) receiptShape {
	if c.Err != nil {
		return receiptShape{ID: c.ID, Error: shapeOf(c.Err)}
	}
	return receiptShape{ID: c.ID, Event: c.Event, CreatedAt: relay.FormatTime(c.CreatedAt), Matched: &c.Matched, Duplicate: &c.Duplicate}
}

func (r *request) publish() error {
	body, _, err := r.body("application/json")
	if err != nil {
		return err
	}
	c, err := r.opt.Intake.Publish(context.Background(), r.store, body, string(r.Request.Header.Peek("Idempotency-Key")))
	if err != nil {
		return err
	}
	r.succeed(202, shapeReceipt(&c), c.Warnings...)
	return nil
}

func (r *request) publishBatch() error {
	body, mediaType, err := r.body("application/json", "application/x-ndjson")
	if err != nil {
		return err
	}
	receipts, err := r.opt.Intake.PublishBatch(context.Background(), r.store, body, mediaType == "application/x-ndjson")
	if err != nil {
		return err
	}
	shapes := make([]receiptShape, len(receipts))
	for i := range receipts {
		shapes[i] = shapeReceipt(&receipts[i])
		shapes[i].Warnings = receipts[i].Warnings
	}
	r.succeed(202, shapes)
	return nil
}

type eventShape struct {
	ID          string          `json:"id"`
	Event       string          `json:"event"`
	CreatedAt   string          `json:"created_at"`
	AcceptedAt  any             `json:"accepted_at"`
	Data        json.RawMessage `json:"data"`
	OrderingKey *string         `json:"ordering_key"`
	Channels    []string        `json:"channels"`
	Deliveries  []deliveryShape `json:"deliveries"`
}

type deliveryShape struct {
	ID            string `json:"id"`
	WebhookID     string `json:"webhook_id"`
	Status        string `json:"status"`
	Attempts      int    `json:"attempts"`
	NextAttemptAt any    `json:"next_attempt_at"`
}

func (r *request) getEvent() error {
	reader, e, err := r.findEvent()
	if err != nil {
		return err
	}
	deliveries, err := state.Deliveries(reader, e)
	if err != nil {
		return err
	}
	s := eventShape{ID: e.ID, Event: e.Type, CreatedAt: relay.FormatTime(e.CreatedAt), AcceptedAt: at(e.AcceptedAt), Data: e.Data, Channels: orEmpty(e.Channels), Deliveries: []deliveryShape{}}
	if e.OrderingKey != "" {
		s.OrderingKey = &e.OrderingKey
	}
	for _, d := range deliveries {
		shape, err := r.delivery(e, d)
		if err != nil {
			return err
		}
		s.Deliveries = append(s.Deliveries, shape)
	}
	r.succeed(200, s)
	return nil
}

// findEvent looks in every partition; of several events with this id, one an
// ordering key, ?ordering_key= picks one.
func (r *request) findEvent() (state.Reader, *relay.Event, error) {
	key, keyed := string(r.QueryArgs().Peek("ordering_key")), r.QueryArgs().Has("ordering_key")
	for _, reader := range r.opt.Partitions.Readers() {
		sequences, err := state.FindEvents(reader, r.store, r.id)
		if err != nil {
			return nil, nil, err
		}
		for _, sequence := range sequences {
			e, err := state.LoadEvent(reader, sequence)
			if err != nil {
				return nil, nil, err
			}
			if e != nil && (!keyed || e.OrderingKey == key) {
				return reader, e, nil
			}
		}
	}
	return nil, nil, relay.NotFound("no such event: it was never accepted here, or is past its retention")
}

func (r *request) delivery(e *relay.Event, d state.Delivery) (deliveryShape, error) {
	s := deliveryShape{ID: relay.DeliveryID(e.Store, e.OrderingKey, e.ID, d.Webhook), Status: d.State.String(), Attempts: d.Attempts, NextAttemptAt: at(d.NextAt)}
	if h := r.opt.Registry.Webhook(d.Webhook); h != nil {
		s.WebhookID = h.ID
		return s, nil
	}
	if !d.State.Settled() {
		s.Status, s.NextAttemptAt = relay.Cancelled.String(), nil // the webhook was deleted
	}
	var err error
	s.WebhookID, err = r.opt.Meta.DeletedWebhook(d.Webhook)
	return s, err
}

type typeShape struct {
	Name        string          `json:"name"`
	Description string          `json:"description"`
	Sample      json.RawMessage `json:"sample"`
	Custom      bool            `json:"custom"`
}

func shapeType(t catalogue.Type) typeShape {
	return typeShape{Name: t.Name, Description: t.Description, Sample: t.Sample}
}

// listTypes lists every type at once: there are few.
func (r *request) listTypes() error {
	shapes := []typeShape{}
	for _, t := range catalogue.All() {
		shapes = append(shapes, shapeType(t))
	}
	r.list(shapes, "")
	return nil
}

func (r *request) getType() error {
	t, ok := catalogue.Lookup(r.id)
	if !ok {
		return relay.NotFound("no such event type: GET /api/event-types lists them")
	}
	r.succeed(200, shapeType(t))
	return nil
}
