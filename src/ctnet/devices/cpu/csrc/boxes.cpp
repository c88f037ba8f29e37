// NMS. Small and sequential, so one thread and no vectors.
#include "ctnet_cpu.h"

#include <algorithm>
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

} // namespace

int ctnet_nms(int64_t n, const double *boxes, const int64_t *labels, const int64_t *order, double threshold,
              double extra, uint8_t *keep) {
    std::unordered_map<int64_t, std::vector<Box>> kept;
    for (int64_t place = 0; place < n; ++place) {
        const int64_t i = order[place];
        const Box box = box_at(boxes, i, extra);
        std::vector<Box> &same = kept[labels[i]];
        const bool covered =
            std::any_of(same.begin(), same.end(), [&](const Box &b) { return !(iou(b, box, extra) <= threshold); });
        keep[i] = !covered;
        if (!covered) same.push_back(box);
    }
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
