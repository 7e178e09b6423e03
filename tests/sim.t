The small trace against clusters: figures may change with the models, the form does not.

  $ trace=$TESTDIR/../traces/small.jsonl
  $ mooncake sim $trace --cluster 6P+2D --slo ttft=30,tbt=0.1
                 mean      min      p50      p75      p90      p95      p99 * (glob)
  TTFT  * (glob)
  TTST  * (glob)
  TBT  * (glob)
  ITL  * (glob)
  end to end  * (glob)
  queue  * (glob)
  tokens/s  * (glob)
  
  requests     1,000: 1,000 completed
  goodput  * % of requests, * a second (TTFT <= 30.0 s: * %, TBT <= 100 ms: * %) (glob)
  throughput  * requests, * input and * output tokens a second (glob)
  blocks hit  * % of 25,088 blocks: * % where placed, * % from another; the 100 hottest lay on up to * instances (glob)
  mean stages  fetch *s, wait *s, prefill *s, transfer *s, decode *s (glob)
  GPU time     prefill * a request, * in all; decode *; nodes there for * (glob)
  links  * TiB; mean * GB/s, peak * GB/s; busiest instance * (glob)
  time  * simulated in * (glob)

Coupled instances, pipelines, and what a policy refuses.

  $ mooncake sim $trace --cluster 8M --coupled-mode chunked --limit 100 | grep -E '^(req|blocks)'
  requests     100: 100 completed
  blocks hit   0.0 % of * blocks: 0.0 % where placed, 0.0 % from another (glob)
  $ mooncake sim $trace --cluster 3Px2+2D --chunk 2048 --limit 100 | grep '^requests'
  requests     100: 100 completed
  $ mooncake sim $trace --cluster 1P+1D --slo ttft=1 --admission early_rejection | grep '^requests'
  requests     1,000: * completed, * refused at arrival (glob)

A sweep has a line for each run, and a page.

  $ mooncake sim $trace --limit 200 --sweep policy=random,kvcache_centric --sweep speed=1,2 --report p.html
  policy           speed  completed  refused  goodput  TTFT mean * (glob)
  random           1            200        0  * (glob)
  random           2            200        0  * (glob)
  kvcache_centric  1            200        0  * (glob)
  kvcache_centric  2            200        0  * (glob)
  $ head -1 p.html; grep -c '<svg' p.html
  <!DOCTYPE html>
  8

Two results beside each other.

  $ mooncake sim $trace --limit 200 --json > a.json
  $ mooncake sim $trace --limit 200 --json --policy random > b.json
  $ mooncake sim --diff a.json b.json | head -5
  option  A                B
  policy  kvcache_centric  random
  
  figure * A * B * B - A * B / A (glob)
  goodput_per_s * (glob)
  $ mooncake sim --diff a.json b.json | grep -E '^(ttft_s.mean|hit_rate|requests)  '
  ttft_s.mean * worse (glob)
  hit_rate * worse (glob)

Synthetic load, with sessions; from standard input; for programs.

  $ mooncake sim --synthetic rate=2,input=4000:1,output=100,requests=50,turns=3,think=5 --limit 80 | grep '^requests'
  requests     80: 80 completed
  $ head -20 $trace | mooncake sim - --json | tr '{,' '\n\n' | grep -E '^"(requests|completed|rejected_arrival)":'
  "completed":20
  "rejected_arrival":0
  "requests":20
  $ mooncake sim --list-policies | grep -c -E '^--(policy|admission) '
  9
  $ mooncake sim --list-models | head -1
  model * GPU * KV/token * (glob)

What is wrong is said.

  $ mooncake sim
  mooncake sim: TRACE or --synthetic is missing
  [2]
  $ mooncake sim $trace --cluster 0P+8D
  mooncake sim: cluster '0P+8D': want instances for prefill and decode as 8P+8D, pipelines of two nodes as 4Px2+8D, or coupled instances as 16M
  [2]
  $ mooncake sim $trace --slo ttft=soon
  mooncake sim: --slo: ttft takes seconds, not 'soon'
  [2]
  $ mooncake sim --synthetic speed=3
  mooncake sim: no parameter 'speed'; there are * (glob)
  [2]
  $ mooncake sim none.jsonl
  mooncake sim: cannot open trace none.jsonl: No such file or directory
  [1]
  $ : > empty.jsonl
  $ mooncake sim empty.jsonl
  mooncake sim: empty.jsonl: there is no request in it
  [1]
