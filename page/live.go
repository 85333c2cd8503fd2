package page

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

const (
	liveLife  = time.Hour // then the browser asks anew, and the session is looked at
	liveWrite = 10 * time.Second
)

// watching counts the live updates of one kind of people.
type watching struct {
	most  int64         // at once
	every time.Duration // how often each is looked at
	n     atomic.Int64
}

// begin returns false if there are as many as may be.
func (c *watching) begin() bool {
	if c.n.Add(1) > c.most {
		c.n.Add(-1)
		return false
	}
	return true
}

func (c *watching) end() { c.n.Add(-1) }

// errSignedOut ends the live update of who is no longer signed in.
var errSignedOut = errors.New("signed out")

// part is an element of the page as it is now.
type part struct {
	ID   string `json:"id"`
	HTML string `json:"html"`
}

// live sends the parts of a view that have changed, as server-sent events, until the browser
// leaves, the session ends, or liveLife is over.
func (p *Page) live(w http.ResponseWriter, r *http.Request, v *visit) {
	p.stream(w, r, &p.watched, v.v.parts, func() (*shown, error) {
		if _, _, ok := p.who(r, false); !ok {
			return nil, errSignedOut
		}
		return p.look(v)
	})
}

func (p *Page) stream(w http.ResponseWriter, r *http.Request, who *watching, parts []string, look func() (*shown, error)) {
	if !who.begin() {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	defer who.end()
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // its end would end the request
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no")
	send := func(event string, data any) bool {
		b, err := json.Marshal(data)
		if err != nil {
			return false
		}
		_ = control.SetWriteDeadline(time.Now().Add(liveWrite))
		if _, err := fmt.Fprintf(w, "event: %s\ndata: %s\n\n", event, b); err != nil {
			return false
		}
		return control.Flush() == nil
	}
	seen := make(map[string][sha256.Size]byte)
	end := time.NewTimer(liveLife)
	defer end.Stop()
	again := time.NewTicker(who.every)
	defer again.Stop()
	for {
		s, err := look()
		switch {
		case errors.Is(err, errSignedOut):
			send("end", "signed out")
			return
		case err != nil: // the node may have trouble with the table: what is shown stays, marked as old
			if !send("stale", err.Error()) {
				return
			}
		default:
			for _, id := range parts {
				html, err := s.Part(id)
				if err != nil {
					p.Logger.Error("page can't be made", "template", s.Template+"/"+id, "error", err)
					return
				}
				sum := sha256.Sum256([]byte(html))
				if seen[id] == sum {
					continue
				}
				seen[id] = sum
				if !send("part", part{id, string(html)}) {
					return
				}
			}
			if !send("fresh", s.Now.UTC().Format(time.RFC3339)) {
				return
			}
		}
		select {
		case <-again.C:
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		case <-p.halted.Done():
			return
		}
	}
}
