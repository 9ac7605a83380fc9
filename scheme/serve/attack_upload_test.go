package serve_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"
)

// Ranges of chunks that are none, or that lie, store nothing, and the session goes on as if they had not been sent.
func TestAttackChunksThatLie(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		at := w.want("202", "PATCH", w.session(repo1), "01234", octets, "Content-Range: 0-4").header("Location")
		put := with(at, "digest="+digest.FromString("0123456789").String())
		for _, rng := range []string{
			"5", "-", "5-", "-9", "a-b", "5-9/10", "bytes 5-9", "bytes=5-9", "5-9,10-14", "5-9-", "+5-9", "5-+9", "0x5-9", "5.0-9", "5 - 9", "9-5", "5-8", "5-10", "4-8", "6-10", "0-4", "0-9",
			"5-9223372036854775807", "9223372036854775802-9223372036854775806", "9223372036854775807-9223372036854775811", "18446744073709551621-18446744073709551625", "5-99999999999999999999",
			"-5-9", "5--9", "５-９", strings.Repeat("5", 10000) + "-9",
		} {
			for method, target := range map[string]string{"PATCH": at, "PUT": put} {
				for _, body := range []any{"56789", stream("56789")} {
					a := w.ask(method, target, body, octets, "Content-Range: "+rng)
					if s := a.res.StatusCode; s != 400 && s != 416 {
						t.Errorf("%s with Content-Range %.40q is answered with %s", a.asked, rng, a.res.Status)
					}
				}
			}
		}
		w.has(w.want("204", "GET", at, nil), "Range: 0-4")
		w.want("400", "PATCH", at, "", octets, "Content-Range: 5-9")
		w.want("400 DIGEST_INVALID", "PUT", with(at, "digest="+digest.FromString("other").String()), "56789", octets, "Content-Range: 5-9")
		w.has(w.want("204", "GET", at, nil), "Range: 0-4")
		for _, query := range []string{"", "digest=", "digest=x", "Digest=" + digest.FromString("0123456789").String()} {
			w.want("400 DIGEST_INVALID", "PUT", with(at, query), "56789", octets, "Content-Range: 5-9")
		}
		w.want("201", "PUT", put, "56789", octets, "Content-Range: 5-9")
		w.reads(repo1, digest.FromString("0123456789"), "0123456789")
	})
}

// However many write to one session at once, what is stored in the end is what one of them sent, in order, or nothing.
func TestAttackManyWritersOfOneSession(t *testing.T) {
	each(t, func(t *testing.T, w *wire) {
		const writers = 8
		parts := make([]string, writers)
		for i := range parts {
			parts[i] = strings.Repeat(string(rune('a'+i)), 200_000)
		}
		at := w.session(repo1)
		answers := make([]int, writers)
		var all sync.WaitGroup
		for i, part := range parts {
			all.Go(func() { answers[i] = w.ask("PATCH", at, part, octets, chunkRange(0, len(part))).res.StatusCode })
		}
		all.Wait()
		winner := -1
		for i, status := range answers {
			switch {
			case status == 202 && winner < 0:
				winner = i
			case status != 416:
				t.Errorf("writers are answered with %v: one may win", answers)
			}
		}
		if winner < 0 {
			t.Fatalf("writers are answered with %v: none has won", answers)
		}
		w.has(w.want("204", "GET", at, nil), "Range: 0-199999")
		d := digest.FromString(parts[winner])
		w.want("201", "PUT", with(at, "digest="+d.String()), "")
		w.reads(repo1, d, parts[winner])
	})
}
