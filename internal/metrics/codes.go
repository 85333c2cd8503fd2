package metrics

import (
	"strconv"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// codeCounters has a counter for each SMTP code, looked up when the code comes for the
// first time: most never do.
type codeCounters struct {
	vec    *prometheus.CounterVec
	labels []string // before the code
	codes  [1000]atomic.Pointer[prometheus.Counter]
}

func newCodeCounters(vec *prometheus.CounterVec, labels ...string) *codeCounters {
	return &codeCounters{vec: vec, labels: labels}
}

// inc counts a code; what is none counts as 0.
func (c *codeCounters) inc(code int) {
	if code < 0 || code >= len(c.codes) {
		code = 0
	}
	counter := c.codes[code].Load()
	if counter == nil {
		found := c.vec.WithLabelValues(append(c.labels[:len(c.labels):len(c.labels)], codeLabel(code))...)
		counter = &found // the same for whoever comes at the same time
		c.codes[code].Store(counter)
	}
	(*counter).Inc()
}

func codeLabel(code int) string {
	s := strconv.Itoa(code)
	return "000"[min(len(s), 3):] + s
}

// classes are the values of the label class.
var classes = [...]string{"none", "1yz", "2yz", "3yz", "4yz", "5yz"}

// classOf returns the place of a code's class in classes.
func classOf(code int) int {
	if c := code / 100; c > 0 && c < len(classes) {
		return c
	}
	return 0
}
