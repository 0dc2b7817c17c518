//! How long the kernels take:
//!
//! ```sh
//! cargo bench -p sealback-tests                      # all; with -- NAME those whose names hold that
//! cargo bench -p sealback-tests -- --list
//! ```

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sealback_tests::kernels;

fn each_kernel(criterion: &mut Criterion) {
    for kernel in kernels::all() {
        let (area, what) = kernel.name.split_once('/').expect("area/what");
        let mut group = criterion.benchmark_group(area);
        group.throughput(match kernel.n_units * kernel.unit_bytes {
            0 => Throughput::Elements(kernel.n_units),
            bytes => Throughput::Bytes(bytes),
        });
        group.bench_function(what, |bencher| bencher.iter(kernel.begin()));
        group.finish();
    }
}

criterion_group!(benches, each_kernel);
criterion_main!(benches);
