package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"mailcutover/admin"
	"mailcutover/bench/figure"
	"mailcutover/internal/seal"
	"mailcutover/rollback/operation"
	"mailcutover/test/peers"
)

// retainedSizes are the messages whose copies are measured, in bytes.
var retainedSizes = []int{10 << 10, 200 << 10}

// retainedExtra is the configuration of a node that keeps copies.
const retainedExtra = "retained: {agency_bytes: 2GiB}\n"

// copying is a node that keeps copies in some way, or none.
type copying struct {
	contender
	set settings
}

// retainedCopies measures what it costs to retain a copy of each message that goes to a target
// whose way back is open.
func retainedCopies(t peers.TB, o options) figure.Part {
	part := figure.Part{
		Name: "Retained copies",
		Notes: []string{
			fmt.Sprintf("smtp-source -s %d, in turns of %s, through nodes whose agency is on its target, with way back, settled.", sessions, o.turn),
			"The message is text, its half base64 of noise, as attachments are. Ratio: with copies to without, in the same round, median of the rounds.",
		},
	}
	sink := peers.StartSink(t)
	var ways []*copying
	kinds := []struct{ name, extra, program string }{
		{"no copies", "retained: {agency_bytes: 0}\n", ""},
		{"copies", retainedExtra, ""},
		{"copies, sealed", retainedExtra + "encryption: {key_file: disk.keys}\n", ""},
	}
	if o.against != "" {
		kinds = append(kinds, struct{ name, extra, program string }{"copies, other build", retainedExtra, o.against})
	}
	for _, c := range kinds {
		w := &copying{set: newSettings(t, sink.Addr)}
		w.name, w.set.extra = c.name, c.extra
		if err := os.WriteFile(filepath.Join(w.set.dir, "disk.keys"), []byte(seal.NewKey("bench")+"\n"), 0o600); err != nil {
			t.Fatalf("keys of the node: %v", err)
		}
		if c.program == "" {
			w.pid = startNode(t, w.set)
		} else {
			w.pid, _ = w.set.launch(t, c.program)
			w.set.fill(t)
		}
		w.set.cutOver(t)
		w.addr = w.set.addr()
		ways = append(ways, w)
	}
	for _, size := range retainedSizes {
		part.Figures = append(part.Figures, retainedOf(t, o, ways, size)...)
	}
	return part
}

// retainedOf measures messages of one size.
func retainedOf(t peers.TB, o options, ways []*copying, size int) []figure.Figure {
	file := ways[0].set.message(t, size)
	for _, w := range ways {
		w.rates, w.costs, w.memory, w.args = nil, nil, nil, []string{"-F", file}
		w.warm(t, o)
	}
	for round := range o.rounds {
		for _, w := range ways {
			w.turn(t)
		}
		fmt.Fprintf(o.progress, "round %d of %d, %d KiB:", round+1, o.rounds, size>>10)
		for _, w := range ways {
			fmt.Fprintf(o.progress, " %s %.0f", w.name, w.rates[round])
		}
		fmt.Fprintln(o.progress, " messages/s")
	}
	var figures []figure.Figure
	for i, w := range ways {
		name := fmt.Sprintf("%d KiB, %s", size>>10, w.name)
		rate, cost := figure.New(name, "messages/s", w.rates...), figure.New(name+", CPU per message", "µs", w.costs...)
		if i > 0 {
			rate = rate.RatioAtLeast(0.8, ratios(w.rates, ways[0].rates))
			cost = cost.Against(ratios(w.costs, ways[0].costs))
		}
		figures = append(figures, rate, cost, figure.New(name+", memory under load", "MiB", w.memory...))
	}
	return figures
}

// cutOver brings the node's agency to its target, and settles it.
func (s *settings) cutOver(t peers.TB) {
	ctx, cancel := context.WithTimeout(t.Context(), startWithin)
	defer cancel()
	api := s.api(t)
	a, err := api.Agency(ctx, "agency")
	if err == nil {
		a, err = api.Arm(ctx, "agency", a.Epoch, "bench")
	}
	if err == nil {
		_, err = api.Switch(ctx, operation.Cutover, "agency", admin.NewSwitch{ExpectedEpoch: a.Epoch, Reason: "bench"})
	}
	if err != nil {
		t.Fatalf("bring the agency to its target: %v", err)
	}
	for {
		if a, err = api.Agency(ctx, "agency"); err == nil && a.Phase == "target" && a.Operation == "" {
			if _, err = api.Settle(ctx, "agency", a.Epoch, "bench"); err == nil {
				return
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("agency on its target: %v, %+v", err, a)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// message writes a message of about size bytes for smtp-source, and returns its file.
func (s *settings) message(t peers.TB, size int) string {
	file := filepath.Join(s.dir, fmt.Sprintf("message-%d", size))
	if err := os.WriteFile(file, likeMail(size), 0o600); err != nil {
		t.Fatalf("message to send: %v", err)
	}
	return file
}

// likeMail returns a message of about n bytes that compresses as mail does: half of it words,
// half base64.
func likeMail(n int) []byte {
	var b bytes.Buffer
	b.WriteString("From: sender@elsewhere.example\r\nTo: " + recipient + "\r\nSubject: report of the week\r\nMessage-ID: <1@elsewhere.example>\r\nMIME-Version: 1.0\r\n\r\n")
	r := mathrand.New(mathrand.NewPCG(1, 2))
	words := make([]string, 3000)
	for i := range words {
		words[i] = rand.Text()[:2+r.IntN(9)]
	}
	for column := 0; b.Len() < n/2; {
		w := words[int(float64(len(words))*r.Float64()*r.Float64())] // some are frequent
		if column += len(w) + 1; column > 72 {
			b.WriteString("\r\n")
			column = len(w) + 1
		}
		b.WriteString(w + " ")
	}
	noise := make([]byte, 54)
	for b.WriteString("\r\n"); b.Len() < n; {
		_, _ = rand.Read(noise)
		b.WriteString(base64.StdEncoding.EncodeToString(noise) + "\r\n")
	}
	return b.Bytes()
}
