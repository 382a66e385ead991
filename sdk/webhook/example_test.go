package webhook_test

import (
	"io"
	"log"
	"net/http"
	"os"

	"github.com/omnisales/edgerelay/sdk/webhook"
)

// A receiver: read the body as it came, verify, then trust it.
func ExampleVerifier() {
	secret, err := webhook.ParseSecret(os.Getenv("WEBHOOK_SECRET"))
	if err != nil {
		log.Print(err)
		return
	}
	v := webhook.Verifier{Secrets: []*webhook.Secret{secret}}
	http.HandleFunc("POST /webhooks/omni", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err == nil {
			err = v.Verify(r.Header, body)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		w.WriteHeader(http.StatusOK) // answer first, work later
	})
}
