package admin

import (
	"bytes"
	"crypto/sha256"
	"io"
	"net/http"
	"sync"
)

// maxKeptAnswers is the number of answers kept for calls that come again. expected_epoch
// and the table's own conditions make an older call harmless.
const maxKeptAnswers = 1000

// maxKeyBytes is the longest Idempotency-Key.
const maxKeyBytes = 200

// kept is the answer to a call with an Idempotency-Key.
type kept struct {
	digest [sha256.Size]byte // of the call
	done   bool
	status int
	header http.Header
	body   []byte
}

// answers keeps those of the last calls by person and key.
type answers struct {
	mu    sync.Mutex
	byKey map[string]*kept
	order []string // finished ones, oldest first
}

// once carries out a call, unless it was carried out under this key before: then the
// first answer comes again. A call that failed is forgotten, so that it may be repeated.
func (s *Server) once(a *answer, r *http.Request, req *request, key string) {
	if len(key) > maxKeyBytes {
		writeProblem(a, problem(http.StatusBadRequest, "a UUID will do", "%s: longer than %d bytes", headerIdempotency, maxKeyBytes))
		return
	}
	body, _ := io.ReadAll(r.Body) // from memory, by admit
	r.Body = io.NopCloser(bytes.NewReader(body))
	digest := sha256.Sum256(append([]byte(r.Method+" "+r.URL.RequestURI()+"\n"), body...))
	key = req.caller.person + "\n" + key
	k, first := s.answers.claim(key, digest)
	switch {
	case first:
	case k.digest != digest:
		writeProblem(a, problem(http.StatusUnprocessableEntity, "take a fresh key for each call", "%s was used for another call", headerIdempotency))
		return
	case !k.done:
		writeProblem(a, problem(http.StatusConflict, "wait for its answer", "the same call is under way"))
		return
	default:
		for name, values := range k.header {
			a.Header()[name] = values
		}
		a.Header().Set("Idempotency-Replayed", "true")
		a.WriteHeader(k.status)
		_, _ = a.Write(k.body)
		return
	}
	rec := &recorder{answer: a}
	finished := false
	defer func() { s.answers.settle(key, rec, finished) }() // also after a panic
	s.mux.ServeHTTP(rec, r)
	finished = true
}

func (x *answers) claim(key string, digest [sha256.Size]byte) (k kept, first bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if k := x.byKey[key]; k != nil {
		return *k, false
	}
	if x.byKey == nil {
		x.byKey = make(map[string]*kept)
	}
	x.byKey[key] = &kept{digest: digest}
	return kept{}, true
}

func (x *answers) settle(key string, rec *recorder, finished bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !finished || rec.status < 200 || rec.status > 299 {
		delete(x.byKey, key)
		return
	}
	k := x.byKey[key]
	k.done, k.status, k.body = true, rec.status, rec.body.Bytes()
	k.header = rec.kept
	x.order = append(x.order, key)
	if len(x.order) > maxKeptAnswers {
		delete(x.byKey, x.order[0])
		x.order = x.order[1:]
	}
}

// recorder keeps a copy of an answer.
type recorder struct {
	*answer
	kept http.Header
	body bytes.Buffer
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.kept == nil {
		r.kept = http.Header{}
		for _, name := range []string{"Content-Type", "Location"} {
			if v := r.Header().Get(name); v != "" {
				r.kept.Set(name, v)
			}
		}
	}
	r.answer.WriteHeader(status)
}

// Write implements io.Writer.
func (r *recorder) Write(b []byte) (int, error) {
	r.body.Write(b)
	return r.answer.Write(b)
}
