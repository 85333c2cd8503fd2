package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/google/uuid"

	"mailcutover/admin/peer"
	"mailcutover/identity/list"
	"mailcutover/internal/door"
)

const (
	maxJSONBytes = 64 << 10
	maxListBytes = 64 << 20 // 100,000 rows have about 20 MiB

	jsonReadTimeout = 15 * time.Second
	listReadTimeout = 5 * time.Minute
	writeTimeout    = 30 * time.Second // for each write of an answer

	// unwantedBodyTimeout is how long net/http may wait for a body that nobody reads,
	// before it sends the answer.
	unwantedBodyTimeout = time.Second
)

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := &request{id: uuid.NewString()}
	r = r.WithContext(context.WithValue(r.Context(), requestKey{}, req))
	a := &answer{ResponseWriter: w, control: http.NewResponseController(w)}
	began := time.Now()
	defer func() {
		level := slog.LevelInfo
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { // our own way to cut a connection
				panic(p)
			}
			s.Logger.Error("call panicked", "request", req.id, "error", fmt.Sprint(p), "stack", string(debug.Stack()))
			if a.status == 0 {
				p := problem(http.StatusInternalServerError, "the node's log has the reason, under the request's id", "internal error")
				p.Request = req.id
				writeProblem(a, p)
			}
		}
		if s.open(r) && a.status < 400 {
			level = slog.LevelDebug // probes and scrapes come every few seconds
		}
		var through []any
		if req.peer != "" {
			through = []any{"node", req.peer, "of", req.of}
		}
		// Not the query: it may name what somebody pasted there by mistake.
		s.Logger.Log(context.WithoutCancel(r.Context()), level, "api call", append(through, "request", req.id, "method", r.Method, "path", r.URL.Path,
			"code", a.status, "person", req.caller.person, "token", req.caller.token, "peer", r.RemoteAddr,
			"milliseconds", time.Since(began).Milliseconds())...)
	}()
	if r.ContentLength != 0 {
		_ = a.control.SetReadDeadline(began.Add(unwantedBodyTimeout)) // until admit wants the body
	}
	h := a.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Request-Id", req.id)
	h.Set(headerApproval, s.Approval)
	if s.Lab {
		h.Set(headerLab, "true")
	}
	if p := s.admit(req, a, r); p != nil {
		p.Request = req.id
		if p.Status == http.StatusUnauthorized {
			h.Set("WWW-Authenticate", `Bearer realm="mailcutover"`)
		}
		writeProblem(a, p)
		return
	}
	if keys := r.Header.Values(headerIdempotency); len(keys) > 0 && r.Method == http.MethodPost && !s.open(r) {
		if len(keys) > 1 || keys[0] == "" || len(keys[0]) > maxKeyBytes {
			// Without a key a caller who believes to have one would repeat what acts twice.
			p := problem(http.StatusBadRequest, "a UUID will do", "%s: want one of 1 to %d bytes", headerIdempotency, maxKeyBytes)
			p.Request = req.id
			writeProblem(a, p)
			return
		}
		s.once(a, r, req, keys[0])
		return
	}
	s.mux.ServeHTTP(a, r)
}

// Headers of every answer: what no operator should overlook.
const (
	headerApproval    = "Mailcutover-Approval"
	headerLab         = "Mailcutover-Lab"
	headerIdempotency = "Idempotency-Key"
)

// open reports whether a path needs no token.
func (s *Server) open(r *http.Request) bool {
	switch r.URL.Path {
	case "/healthz", "/readyz", "/metrics":
		return true
	}
	return false
}

// admit checks what can be checked before the call's own code runs, and reads the body.
func (s *Server) admit(req *request, a *answer, r *http.Request) *Problem {
	if s.open(r) {
		return nil
	}
	var ok bool
	if peer.Claims(r) {
		if p := s.admitPeer(req, r); p != nil {
			return p
		}
	} else if req.caller, ok = s.authenticate(r); !ok {
		return problem(http.StatusUnauthorized, "send Authorization: Bearer TOKEN; mailcutover token new makes one", "no valid token")
	}
	if r.Context().Value(insideKey{}) == nil { // the page vouches for its own connections
		door.Vouch(r.Context())
	}
	if err := s.origin.Check(r); err != nil {
		return problem(http.StatusForbidden, "", "call from another site's page: %s", err)
	}
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		if r.ContentLength != 0 {
			return problem(http.StatusBadRequest, "", "a %s has no body here", r.Method)
		}
		return nil
	}
	if r.URL.Path == listsPath || r.URL.Path == checkListPath {
		return readBody(a, r, fileType, list.MaxBytes, listReadTimeout)
	}
	if r.URL.Path == restorePath {
		if !req.caller.has(mayAdminister) { // before so much is read
			return req.caller.lacks("propose-restore", mayAdminister)
		}
		return readBody(a, r, backupType, maxBackupBytes, backupTimeout)
	}
	if r.URL.Path == importPath || r.URL.Path == remapPath {
		return readBody(a, r, "text/csv", maxListBytes, listReadTimeout)
	}
	return readBody(a, r, "application/json", maxJSONBytes, jsonReadTimeout)
}

// readBody reads a body of a known type into memory, where the call's own code finds it.
func readBody(a *answer, r *http.Request, want string, limit int64, patience time.Duration) *Problem {
	if r.ContentLength > limit {
		return tooLarge(limit)
	}
	ct, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	charset := strings.ToLower(params["charset"])
	if err != nil || ct != want || charset != "" && charset != "utf-8" || r.Header.Get("Content-Encoding") != "" {
		return problem(http.StatusUnsupportedMediaType, "send Content-Type: "+want, "%s: content type %q is not taken here", r.URL.Path, r.Header.Get("Content-Type"))
	}
	_ = a.control.SetReadDeadline(time.Now().Add(patience))
	body, err := io.ReadAll(http.MaxBytesReader(a, r.Body, limit))
	_ = a.control.SetReadDeadline(time.Time{}) // its end would end the call's context
	if over := new(http.MaxBytesError); errors.As(err, &over) {
		return tooLarge(limit)
	}
	if err != nil {
		return problem(http.StatusBadRequest, "", "body can't be read to its end")
	}
	if want == "application/json" {
		if err := checkJSON(body); err != nil {
			return problem(http.StatusBadRequest, "see /openapi.yaml", "%s", err)
		}
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	return nil
}

func tooLarge(limit int64) *Problem {
	return problem(http.StatusRequestEntityTooLarge, "", "body is larger than %d bytes", limit)
}

// answer notes the status and gives each write a deadline.
type answer struct {
	http.ResponseWriter
	control *http.ResponseController
	status  int
}

// WriteHeader implements http.ResponseWriter.
func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	a.ResponseWriter.WriteHeader(status)
}

// Write implements io.Writer.
func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	_ = a.control.SetWriteDeadline(time.Now().Add(writeTimeout))
	return a.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController through.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
