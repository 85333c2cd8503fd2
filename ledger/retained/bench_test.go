package retained

import (
	"fmt"
	"testing"

	"mailcutover/mail"
)

// BenchmarkKeep is what a copy costs a message, with 20 that pass at once.
func BenchmarkKeep(b *testing.B) {
	for _, size := range []int{10 << 10, 200 << 10} {
		body := text(size)
		for name, o := range map[string]Options{"zstd": {}, "none": {Uncompressed: true}} {
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				o.Dir = b.TempDir()
				s, err := Open(o)
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				rcpts := to("health", "dora")
				b.SetBytes(int64(size))
				b.SetParallelism(10)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						in := s.Begin("health")
						for rest := body; len(rest) > 0; {
							n := min(len(rest), 32<<10)
							in.Write(rest[:n])
							rest = rest[n:]
						}
						in.Keep(&Message{Transaction: mail.NewTransactionID(), Platform: "ox", From: "a@b.example"}, rcpts)
						in.Discard()
					}
				})
				if st := s.Status(); st.Failed > 0 {
					b.Errorf("%d failed: %v", st.Failed, st.Err)
				}
			})
		}
	}
}
