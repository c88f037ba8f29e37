// NMS. Whether two boxes overlap too much is decided here, rounded alike on every CPU; vectors only find suspects.
#include "work.h"

#include <cmath>
#include <unordered_map>
#include <vector>

namespace {

struct Box {
    double x1, y1, x2, y2, area;
};

Box box_at(const double *boxes, int64_t i, double extra) {
    const double *b = boxes + 4 * i;
    return {b[0], b[1], b[2], b[3], (b[2] - b[0] + extra) * (b[3] - b[1] + extra)};
}

double iou(const Box &a, const Box &b, double extra) {
    const double width = std::min(a.x2, b.x2) - std::max(a.x1, b.x1) + extra;
    const double height = std::min(a.y2, b.y2) - std::max(a.y1, b.y1) + extra;
    const double intersection = std::max(width, 0.0) * std::max(height, 0.0);
    const double united = a.area + b.area - intersection;
    return united > 0 ? intersection / united : 0;
}

// Kept boxes of one label.
class Kept {
    std::vector<double> fields[5];
    const double threshold, extra;

  public:
    Kept(double threshold, double extra) : threshold(threshold), extra(extra) {}

    int64_t count() const { return static_cast<int64_t>(fields[0].size()); }

    void add(const Box &b) {
        const double values[5] = {b.x1, b.y1, b.x2, b.y2, b.area};
        for (int field = 0; field < 5; ++field) fields[field].push_back(values[field]);
    }

    bool cover(const ctnet::Kernels &kernels, const Box &b) const {
        const double *const kept[5] = {fields[0].data(), fields[1].data(), fields[2].data(), fields[3].data(),
                                       fields[4].data()};
        const double box[5] = {b.x1, b.y1, b.x2, b.y2, b.area};
        const double low = threshold * (1 - 1e-10); // vectors may round otherwise
        for (int64_t i = 0; i < count(); i += ctnet::kSuspects) {
            if (threshold >= 0) i = kernels.suspects(kept, i, count(), box, low, extra);
            for (int64_t k = i; k < std::min(i + ctnet::kSuspects, count()); ++k)
                if (!(iou({kept[0][k], kept[1][k], kept[2][k], kept[3][k], kept[4][k]}, b, extra) <= threshold))
                    return true;
        }
        return false;
    }
};

} // namespace

int ctnet_nms(int64_t n, const double *boxes, const double *scores, const int64_t *labels, const int64_t *order,
              double threshold, double extra, int64_t limit, uint8_t *keep, int threads) {
    const ctnet::Kernels &kernels = ctnet::selected_kernels();
    std::unordered_map<int64_t, std::vector<int64_t>> by_label;
    for (int64_t place = 0; place < n; ++place) by_label[labels[order[place]]].push_back(order[place]);
    std::vector<const std::vector<int64_t> *> groups;
    for (const auto &entry : by_label) groups.push_back(&entry.second);
    constexpr int64_t few = 4 << 20; // comparisons, for which other threads are not worth waking
    const int64_t most = limit < 0 ? n : std::min(n, limit);
    ctnet::run(n * most < few ? 1 : threads, static_cast<int64_t>(groups.size()), [&](int64_t group) {
        Kept kept(threshold, extra);
        double last = 0; // score of the last kept one
        for (int64_t i : *groups[group]) {
            keep[i] = 0;
            if (limit >= 0 && kept.count() >= limit && scores[i] < last) continue;
            const Box box = box_at(boxes, i, extra);
            if (kept.cover(kernels, box)) continue;
            keep[i] = 1;
            last = scores[i];
            kept.add(box);
        }
    });
    return 0;
}

int ctnet_soft_nms(int64_t n, const double *boxes, double *scores, int gaussian, double sigma, double threshold,
                   double floor, double extra) {
    std::vector<int64_t> waiting;
    for (int64_t i = 0; i < n; ++i)
        if (scores[i] == scores[i]) waiting.push_back(i); // one that is no number has no place in an order
    while (!waiting.empty()) {
        // The first of the strongest; kept in the order given, so that ties are settled by it.
        auto strongest = std::max_element(waiting.begin(), waiting.end(),
                                          [&](int64_t a, int64_t b) { return scores[a] < scores[b]; });
        const Box box = box_at(boxes, *strongest, extra);
        waiting.erase(strongest);
        for (int64_t i : waiting) {
            const double overlap = iou(box, box_at(boxes, i, extra), extra);
            if (gaussian) scores[i] *= std::exp(-overlap * overlap / sigma);
            else if (overlap > threshold) scores[i] *= 1 - overlap;
        }
        waiting.erase(std::remove_if(waiting.begin(), waiting.end(), [&](int64_t i) { return !(scores[i] >= floor); }),
                      waiting.end());
    }
    return 0;
}
